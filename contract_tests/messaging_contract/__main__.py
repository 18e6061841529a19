"""`python -m messaging_contract`: runs the contract suite against brokers, lists its clauses, tries its saboteurs.

`python -m messaging_contract soak` runs producers and consumers under faults instead, and accounts for every message.
`python -m messaging_contract model` drives a broker and a model of it side by side (docs/model-test.md).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from messaging.errors import ConfigurationError
from messaging_contract import parallel, safe_run
from messaging_contract.anchors import coverage
from messaging_contract.brokers import Settings, check_target
from messaging_contract.clauses import all_clauses
from messaging_contract.deadline import hung
from messaging_contract.journal import Journal
from messaging_contract.report import check_path
from messaging_contract.report_json import describe
from messaging_contract.session import ContractSession

_HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 when every clause held on every broker that was run."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["soak"]:
        from messaging_contract.soak import command

        return command.main(given[1:])
    if given[:1] == ["model"]:
        from messaging_contract.model.command import main as model

        return model(given[1:])
    parser = _parser()
    options = parser.parse_args(given)
    if options.json and not options.list:
        parser.error("--json goes with --list; the results as JSON are --report FILE.json")
    if options.markdown and (not options.list or options.json):
        parser.error("--markdown goes with --list alone; the results as Markdown are --report FILE.md")
    if options.markdown:
        from messaging_contract.coverage_page import coverage_page

        print(coverage_page(), end="")
        return 0
    if options.list:
        return _list(options.json)
    if options.saboteurs:
        from messaging_contract.saboteurs.hunt import hunt

        return hunt(options.k, options.database or os.environ.get("MESSAGING_DATABASE"))
    if (options.strict or options.dry_run or options.delay) and not options.safe:
        parser.error("--strict, --dry-run and --delay go with --safe")
    if options.safe and (options.jobs > 1 or options.part):
        parser.error("--safe runs one clause at a time, to be no burden: leave -j and --part away")
    reports = [Path(name) for name in options.report]
    try:
        for path in reports:
            check_path(path)
        for target in options.broker:
            check_target(target)
        settings = Settings.of(options.broker, options.containers, options.require, os.environ, options.database)
        if options.safe and options.dry_run:
            return safe_run.dry_run(settings)
        if options.safe:
            return safe_run.run(settings, reports, _pytest_arguments(options), options.delay, options.strict)
        journal = Journal(Path(options.journal)) if options.journal else None
        session = ContractSession(settings, reports, *_part(options.part), options.deadline, journal)
    except (ValueError, ConfigurationError) as error:
        parser.error(str(error))
    one = options.exitfirst or options.verbose or options.part
    brokers = len(settings.brokers) + len(settings.containers)
    jobs = options.jobs or (1 if one else 8 * (os.cpu_count() or 1))
    jobs = min(jobs, brokers if options.k else parallel.parts(settings))
    if jobs > 1:
        if one:
            parser.error("-x, -v and --part are for one broker at a time: leave -j away, or say -j 1")
        chosen = ["-k", options.k] if options.k else []
        chosen += ["--deadline", str(options.deadline)] if options.deadline else []
        return parallel.run(settings, jobs, chosen, all_clauses(), reports, partial(print, flush=True))
    return int(pytest.main(_pytest_arguments(options), plugins=[session]))


def _pytest_arguments(options: argparse.Namespace) -> list[str]:
    # Its own configuration: what the project around it sets for its tests is none of the suite's business. Without
    # the plugin of hypothesis, which no clause uses and which is imported, all of it, when the report is written.
    chosen = [
        "-c",
        str(_HERE / "pytest.ini"),
        "--rootdir",
        str(_HERE),
        str(_HERE / "clauses"),
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
    ]
    if options.k:
        chosen += ["-k", options.k]
    if options.exitfirst:
        chosen.append("-x")
    if options.verbose:
        chosen.append("-v")
    return chosen


def _part(text: str) -> tuple[int, int]:
    """`2/3` is the second of three. Raises ValueError."""
    part, slash, parts = (text or "1/1").partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"--part {text}: must be I/N with I from 1 to N, such as 2/3")
    return int(part), int(parts)


def _list(as_json: bool) -> int:
    clauses = all_clauses()
    covered = coverage(clauses)
    if as_json:
        print(json.dumps({"clauses": [describe(c) for c in clauses], "coverage": covered}, indent=1))
        return 0
    for clause in clauses:
        numbers = ", ".join([*map(str, clause.anchors), *(f"F{number}" for number in clause.failures)])
        needs = ", ".join([*clause.needs, *(f"control {name}" for name in clause.controls)])
        print(f"{clause.id}\n    {clause.sentence}")
        print(f"    covers {numbers or 'nothing listed'}" + (f"; needs {needs}" if needs else ""))
    print(f"\n{len(clauses)} clauses")
    for title, table in covered.items():
        done = sum(1 for row in table if row["clauses"])
        print(f"\n{title}: {done} of {len(table)} covered; the others:")
        for row in table:
            if not row["clauses"]:
                print(f"  {row['number']:>3} {row['text']}: {row['why not']}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m messaging_contract", description=__doc__)
    parser.add_argument("--broker", action="append", default=[], metavar="URL", help="a running broker (repeatable)")
    parser.add_argument(
        "--containers", metavar="NAMES", help="brokers to start, such as rabbitmq,kafka,sqs (MESSAGING_CONTAINERS)"
    )
    parser.add_argument("--require", action="store_true", help="what is not there is a failure (MESSAGING_REQUIRE=1)")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="for the clauses about the patterns on SQL, as SQLAlchemy takes it; a temporary SQLite unless told "
        "(MESSAGING_DATABASE)",
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only clauses whose id matches, as in pytest")
    parser.add_argument("-x", "--exitfirst", action="store_true", help="stop at the first failure")
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="processes at a time (eight times the cores; 1 with -x, -v or --part). Slow brokers that are started "
        "here are started more than once when there are enough, each for a part of the clauses",
    )
    parser.add_argument("--part", default="", metavar="I/N", help="only the I-th of N parts of the clauses")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="no clause may take longer than this")
    parser.add_argument("--journal", help=argparse.SUPPRESS)  # from one process to the one that goes on for it
    parser.add_argument("-v", "--verbose", action="store_true", help="a line a clause")
    parser.add_argument(
        "--report",
        action="append",
        default=[],
        metavar="FILE",
        help=".md, .json, .html, or .xml for JUnit (repeatable)",
    )
    parser.add_argument(
        "--safe",
        action="store_true",
        help="for a cluster that others use: break nothing, send little, leave nothing "
        "behind, and tell what its settings do not uphold",
    )
    parser.add_argument("--strict", action="store_true", help="with --safe: such a setting is a failure too")
    parser.add_argument("--dry-run", action="store_true", help="with --safe: only tell what would be made")
    parser.add_argument(
        "--delay",
        action="append",
        type=float,
        default=[],
        metavar="SECONDS",
        help="with --safe: also look at what a retry after so long needs (repeatable)",
    )
    parser.add_argument("--list", action="store_true", help="show the clauses and what they cover, and stop")
    parser.add_argument("--json", action="store_true", help="with --list: for machines")
    parser.add_argument("--markdown", action="store_true", help="with --list: docs/contract.md")
    parser.add_argument("--saboteurs", action="store_true", help="prove the suite: every planted defect must be found")
    return parser


if __name__ == "__main__":
    status = main()
    if hung:  # the interpreter would wait for its threads
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
