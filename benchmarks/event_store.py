"""`python -m benchmarks.event_store --database URL`: the event store against the library `eventsourcing`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateSchema, DropSchema

from benchmarks import machine, report
from benchmarks.event_contenders import EventContender, Eventsourcing, EventsourcingFunctions, Ours

TARGET = 2.0
"""Times as fast as the library."""


@dataclass(frozen=True)
class EventScenario:
    """On so many accounts with so many deposits each. run: does one slice of it; returns how many events that was."""

    title: str
    accounts: int
    deposits: int
    run: Callable[[EventContender, list[Any]], int]
    slices: int = 10


def _append(commits: int, each: int) -> Callable[[EventContender, list[Any]], int]:
    def run(contender: EventContender, accounts: list[Any]) -> int:
        for number in range(commits):
            contender.deposit(accounts[number % len(accounts)], each)
        return commits * each

    return run


def _append_together(threads: int, commits: int) -> Callable[[EventContender, list[Any]], int]:
    def run(contender: EventContender, accounts: list[Any]) -> int:
        def work(number: int) -> None:
            for _ in range(commits):
                contender.deposit(accounts[number], 1)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        return threads * commits

    return run


def _replay(contender: EventContender, accounts: list[Any]) -> int:
    events = 0
    for account in accounts:
        if contender.load(account) < 0:
            raise AssertionError("a balance is wrong")
        events += account.version
    return events


def _follow(contender: EventContender, accounts: list[Any]) -> int:
    return contender.follow()


SCENARIOS = (
    EventScenario("append, 1 event a commit", 10, 0, _append(100, 1)),
    EventScenario("append, 10 events a commit", 10, 0, _append(30, 10)),
    EventScenario("append, 100 events a commit", 10, 0, _append(10, 100)),
    EventScenario("append, 1 event a commit, 4 threads", 4, 0, _append_together(4, 25)),
    EventScenario("replay, aggregates of 10 events", 100, 9, _replay),
    EventScenario("replay, aggregates of 1,000 events", 3, 999, _replay),
    EventScenario("read all events of the store", 10, 999, _follow, slices=5),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, shows and writes. Returns 0 when ours is as fast as the target everywhere, 1 when not, 2 on errors."""
    options = _parser().parse_args(arguments)
    database = make_url(options.database)
    kinds: list[type[EventContender]] = [Ours, Eventsourcing]
    if database.drivername != "sqlite":
        kinds.append(EventsourcingFunctions)
    try:
        rows = [_measure(scenario, database, kinds, options.rounds) for scenario in SCENARIOS]
    except (ImportError, OperationalError) as error:
        print(f"{error}\npip install -r benchmarks/requirements.txt; name a running database", file=sys.stderr)
        return 2
    results = {"database": database.drivername, "machine": machine.describe(), "scenarios": rows}
    _show(results, report.console())
    if options.json:
        report.write_json(results, options.json)
    return 0 if all(row["met"] for row in rows) else 1


def _measure(scenario: EventScenario, database: URL, kinds: list[type[EventContender]], rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for number in range(rounds):
        print(f"{scenario.title}, round {number + 1}", file=sys.stderr, flush=True)
        for name, rate in _round(scenario, database, kinds).items():
            rates[name].append(rate)
    ours = rates[Ours.name]
    ratios = {name: [mine / theirs for mine, theirs in zip(ours, found, strict=True)] for name, found in rates.items()}
    met = all(median(found) >= TARGET for name, found in ratios.items() if name != Ours.name)
    return {"title": scenario.title, "rates": rates, "ratios": ratios, "met": met}


def _round(scenario: EventScenario, database: URL, kinds: list[type[EventContender]]) -> dict[str, float]:
    """Events a second of each, on tables of this round's own.

    They take turns slice by slice, each as often the first as the others: what slows the machine for a second, such
    as a checkpoint of the database, slows all of them.
    """
    events, seconds = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0)
    with ExitStack() as stack:
        ready = {kind: stack.enter_context(_opened(kind, scenario, database)) for kind in kinds}
        for number in range(-1, scenario.slices):
            turn = number % len(kinds)
            for kind in (*kinds[turn:], *kinds[:turn]):
                contender, accounts = ready[kind]
                start = time.perf_counter()
                done = scenario.run(contender, accounts)
                if number < 0:
                    continue  # connections, threads, prepared statements: what a program does once
                seconds[kind] += time.perf_counter() - start
                events[kind] += done
    return {kind.name: events[kind] / seconds[kind] for kind in kinds}


@contextmanager
def _opened(
    kind: type[EventContender], scenario: EventScenario, database: URL
) -> Iterator[tuple[EventContender, list[Any]]]:
    schema = f"bench_{uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        admin = create_engine(database) if database.drivername != "sqlite" else None
        if admin is not None:
            with admin.begin() as connection:
                connection.execute(CreateSchema(schema))
        contender = kind(database, schema, Path(folder))
        contender.open()
        try:
            accounts = contender.new_accounts(scenario.accounts)
            if scenario.deposits:
                for account in accounts:
                    contender.deposit(account, scenario.deposits)
            yield contender, accounts
        finally:
            contender.close()
            if admin is not None:
                with admin.begin() as connection:
                    connection.execute(DropSchema(schema, cascade=True))
                admin.dispose()


def _show(results: dict[str, Any], out: Console) -> None:
    found = results["machine"]
    out.print(f"{results['database']}; {found['cpu']}, {found['cores']} cores, load {found['load']}")
    table = Table("", "library", "events/s", "ours / this", "range")
    for row in results["scenarios"]:
        for name, rates in row["rates"].items():
            ratios = row["ratios"][name]
            own = name == Ours.name
            table.add_row(
                row["title"] if own else "",
                name,
                f"{median(rates):,.0f}",
                "" if own else f"{median(ratios):.2f}",
                "" if own else f"{min(ratios):.2f}..{max(ratios):.2f}",
            )
    out.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.event_store", description=__doc__)
    parser.add_argument("--database", required=True, help="sqlite:// (a file of its own), or postgresql+psycopg://...")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="5 when left out")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
