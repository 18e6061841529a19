"""`python -m benchmarks --broker rabbitmq|kafka|sqs|memory`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks import machine, report, runner
from benchmarks.catalogue import BROKERS, HOW_TO_START, Setup
from benchmarks.contender import Settings
from benchmarks.exactly_once import exactly_once
from benchmarks.flatness import flatness
from benchmarks.scenarios import SCENARIOS
from benchmarks.worker_overhead import worker_overhead
from messaging import connect
from messaging.config import redact
from messaging.errors import MessagingError, UnsupportedCapability

_ONLY = (*(s.name for s in SCENARIOS), "queue", "worker", "exactly-once", "flatness")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, shows and writes. Returns 0 when every target that was measured is met, 1 when one is not, 2 on errors."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    console = report.console()
    setups = BROKERS[options.broker]
    url = options.url or setups[0].url
    try:
        with connect(url) as broker:
            broker.ping()
    except MessagingError as error:
        print(f"no {options.broker} at {redact(url)}: {error}\n{HOW_TO_START}", file=sys.stderr)
        return 2
    results: dict = {"broker": options.broker, "url": redact(url), "machine": machine.describe(), "parts": []}
    with console.status("") as status:

        def progress(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                print(text, file=sys.stderr, flush=True)

        for setup in setups:
            if not _wanted(setup, options.only):
                continue
            messages = options.messages or setup.messages
            only = None if options.only == "queue" else options.only
            try:
                if only not in ("worker", "exactly-once", "flatness"):
                    part = runner.run(setup, _settings(setup, url), messages, options.rounds, only, progress)
                    results["parts"].append(part)
            except UnsupportedCapability as error:
                progress(f"{setup.title}: {error}")
        if options.broker == "memory" and options.only in (None, "worker"):
            progress("worker")
            messages = options.messages or setups[0].messages
            results["worker"] = worker_overhead(_settings(setups[0], url), messages, options.rounds)
        if options.broker == "kafka" and options.only in (None, "exactly-once"):
            progress("exactly once")
            messages = options.messages or setups[0].messages
            results["exactly_once"] = exactly_once(_settings(setups[0], url), messages, options.rounds)
        if options.only in (None, "flatness"):
            results["flatness"] = []
            for setup in setups:
                progress(f"memory, {setup.title}")
                count = options.messages * 10 if options.messages else setup.flat_messages
                results["flatness"].append({"title": setup.title, **flatness(_settings(setup, url), count)})
    if not (results["parts"] or results.get("worker") or results.get("exactly_once") or results.get("flatness")):
        print(f"--only {options.only} measures nothing on {options.broker}", file=sys.stderr)
        return 2
    report.show(results, console)
    if options.json:
        report.write_json(results, options.json)
    return 0 if _all_met(results) else 1


def _wanted(setup: Setup, only: str | None) -> bool:
    return only != "queue" or setup.name == "kafka-queue"


def _settings(setup: Setup, url: str) -> Settings:
    return replace(Settings(url), **setup.settings)


def _all_met(results: dict) -> bool:
    entries = [
        entry
        for part in results["parts"]
        for scenario in part["scenarios"]
        for row in scenario["contenders"]
        for entry in row["metrics"].values()
    ]
    checks = [entry["met"] for entry in entries if "met" in entry]
    checks += [case["met"] for case in results.get("worker", ())]
    checks += [part["flat"] for part in results.get("flatness", ())]
    return all(checks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--broker", choices=sorted(BROKERS), required=True)
    parser.add_argument("--url", help="where it is; without it, localhost and the default port")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    parser.add_argument("--messages", type=_positive, metavar="N", help="messages of the bulk scenarios")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="5 when left out; use an odd number")
    parser.add_argument("--only", choices=_ONLY, help="one scenario; queue: Kafka's share-group queue")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
