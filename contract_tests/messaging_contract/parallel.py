"""Several brokers at a time, a process each, the slow ones in parts: the clauses wait far more than they compute."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pytest

from messaging_contract.brokers import Settings, candidates
from messaging_contract.clause import Clause
from messaging_contract.declarations import unproven
from messaging_contract.matrix import Matrix, summary
from messaging_contract.report import write
from messaging_contract.report_json import of_json
from messaging_contract.runner import Outcome
from messaging_contract.terminal import show

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Child:
    """One broker, tested by a process of its own.

    status: 0 only if all of it held; a process that a signal ended has its number. output: what it printed.
    """

    name: str
    status: int
    output: str
    matrix: Matrix


@dataclass(frozen=True)
class _Target:
    """A broker, or one of the parts that its clauses are divided into."""

    name: str
    arguments: tuple[str, ...]


def run(
    settings: Settings, jobs: int, chosen: Sequence[str], clauses: list[Clause], reports: list[Path], say: Say
) -> int:
    """Runs `jobs` brokers or parts at a time, and reports as one run. Returns the exit status.

    chosen: further arguments for each. clauses: all there are, the rows of the matrix.
    """
    started = time.monotonic()
    names = [candidate.name for candidate in candidates(settings)]
    targets = _targets(settings, names, divided=not chosen and jobs >= parts(settings))
    left = Counter(target.name for target in targets)
    done: list[_Child] = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        running = []
        # In the environment, because anybody can read the arguments of a process.
        database = {} if settings.database is None else {"MESSAGING_DATABASE": settings.database}
        for number, target in enumerate(targets):
            arguments = [*target.arguments, *chosen, *(["--require"] if settings.require else [])]
            running.append(
                pool.submit(_run, target.name, arguments, clauses, Path(scratch) / f"{number}.json", database)
            )
        for future in as_completed(running):
            child = future.result()
            done.append(child)
            if child.status:
                say(child.output)
            left[child.name] -= 1
            if not left[child.name]:
                say(f"{child.name}: {summary(_merge([c for c in done if c.name == child.name], clauses), child.name)}")
    matrix = _merge(sorted(done, key=lambda child: names.index(child.name)), clauses, whole=not chosen)
    show(matrix, say, sys.stdout.isatty(), 120)
    for path in reports:
        write(matrix, path)
        say(f"report: {path}")
    say(f"{len(names)} brokers in {len(targets)} parts, {jobs} at a time, in {time.monotonic() - started:.0f} s")
    say(_closing(matrix))
    nothing = int(pytest.ExitCode.NO_TESTS_COLLECTED)
    failed = next((child.status for child in done if child.status not in (0, nothing)), 0)
    if failed or unproven(matrix):
        return failed or 1
    return nothing if all(child.status for child in done) else 0


def parts(settings: Settings) -> int:
    """How many processes have something to do. A broker that the suite starts may be started once a part."""
    return len(settings.brokers) + sum(_parts(spec) for spec in settings.containers)


def _parts(spec: str) -> int:
    try:
        from messaging_contract.containers import catalogue
    except ImportError:
        return 1
    return catalogue.find(spec).parts


def _targets(settings: Settings, names: list[str], divided: bool) -> list[_Target]:
    own = len(settings.brokers)
    targets = [_Target(n, ("--broker", b)) for n, b in zip(names[:own], settings.brokers, strict=True)]
    for name, spec in zip(names[own:], settings.containers, strict=True):
        count = _parts(spec) if divided else 1
        for part in range(1, count + 1):
            targets.append(_Target(name, ("--containers", spec, "--part", f"{part}/{count}")))
    return targets


def _run(name: str, arguments: list[str], clauses: list[Clause], report: Path, beside: Mapping[str, str]) -> _Child:
    """A process that dies in a clause is followed by one that goes on behind it."""
    journal = report.with_suffix(".journal")
    command = [sys.executable, "-m", "messaging_contract", "--jobs", "1", "--report", str(report)]
    command += ["--journal", str(journal), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "MESSAGING_CONTAINERS"}
    environment.update(beside)
    output = ""
    while True:
        known = _size(journal)
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output += ended.stdout.decode(errors="replace")
        if report.exists():
            return _Child(name, abs(ended.returncode), output, of_json(report.read_text("utf-8"), clauses))
        if _size(journal) == known:
            break
    unavailable = {name: f"its process ended with {ended.returncode}"}
    return _Child(name, abs(ended.returncode) or 1, output, Matrix(clauses, [name], [], unavailable))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _merge(children: list[_Child], clauses: list[Clause], whole: bool = False) -> Matrix:
    run = {clause.id for child in children if child.matrix.results for clause in child.matrix.clauses}
    return Matrix(
        [clause for clause in clauses if clause.id in run],
        list(dict.fromkeys(child.name for child in children)),
        [result for child in children for result in child.matrix.results],
        {name: reason for child in children for name, reason in child.matrix.unavailable.items()},
        {name: facts for child in children for name, facts in child.matrix.facts.items()},
        whole,
    )


def _closing(matrix: Matrix) -> str:
    counts: Counter[Outcome] = Counter()
    for broker in matrix.brokers:
        counts += matrix.counts(broker)
    passed = counts[Outcome.PASS] + counts[Outcome.EMULATED] + counts[Outcome.REFUSED]
    return f"{passed} passed, {counts[Outcome.FAILED]} failed, {counts[Outcome.NOT_RUN]} skipped"
