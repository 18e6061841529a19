"""`python -m benchmarks.outbox --database URL --broker URL`: what outbox and inbox cost.

The relay: rows a second from a full outbox until every row is confirmed by the broker and taken out. The inbox:
microseconds that it adds to a transaction with one insert, the same on the same connection.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Shown
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, String, Table, create_engine, insert
from sqlalchemy.schema import CreateSchema, DropSchema

import messaging
from benchmarks import machine
from benchmarks.contender import PAYLOAD
from benchmarks.stats import spread
from messaging import Message, Queue
from messaging.config import redact
from messaging_sql import Inbox, Outbox, Relay, Tables, create_tables

TARGET = 5_000.0
"""Rows a second that one relay publishes to an unordered queue on PostgreSQL."""

CASES = (
    ("unordered", False, 0, 1),
    ("ordered, 1000 keys", True, 1000, 1),
    ("ordered, 100 keys", True, 100, 1),
    ("unordered, two relays in one process", False, 0, 2),
)


def relay(engine: Engine, tables: Tables, url: str, rows: int, ordered: bool, keys: int, relays: int) -> float:
    """Rows a second."""
    queue = Queue(f"bench-{uuid.uuid4().hex[:12]}", ordered=ordered)
    outbox = Outbox(tables=tables, notify=False)
    for start in range(0, rows, 1000):
        with engine.begin() as connection:
            numbers = range(start, min(start + 1000, rows))
            items = [Message(PAYLOAD, key=f"key-{n % keys}" if keys else None) for n in numbers]
            outbox.add_many(connection, queue, items)
    with messaging.connect(url, topology=queue) as broker:
        running = [Relay(engine, broker, tables=tables) for _ in range(relays)]
        began = time.perf_counter()
        for each in running:
            each.start()
        while sum(each.stats.published for each in running) < rows:
            time.sleep(0.002)
        seconds = time.perf_counter() - began
        for each in running:
            each.stop()
        broker.delete(queue)
    return rows / seconds


def inbox(engine: Engine, tables: Tables, effects: Table, messages: int) -> dict[str, float]:
    """Microseconds a message: the effect alone, with the inbox, a duplicate, and a duplicate in batches of 1000."""
    known = Inbox(f"bench-{uuid.uuid4().hex[:12]}", tables=tables)
    ids = [uuid.uuid4().hex for _ in range(messages)]

    def alone(connection: Connection, message_id: str) -> None:
        connection.execute(insert(effects).values(id=message_id))

    def guarded(connection: Connection, message_id: str) -> None:
        if known.first_time(connection, message_id):
            alone(connection, message_id)

    def each(work: Callable[[Connection, str], None]) -> float:
        began = time.perf_counter()
        for message_id in ids:
            with engine.begin() as connection:
                work(connection, message_id)
        return (time.perf_counter() - began) / messages * 1e6

    found = {"effect alone": each(alone), "with the inbox": each(guarded), "duplicate": each(guarded)}
    deliveries = [_Id(one) for one in ids]
    began = time.perf_counter()
    for start in range(0, messages, 1000):
        with engine.begin() as connection:
            assert not known.only_new(connection, deliveries[start : start + 1000])  # type: ignore[arg-type]
    found["duplicate, 1000 in a batch"] = (time.perf_counter() - began) / messages * 1e6
    return found


class _Id:
    """What of a delivery the inbox looks at."""

    def __init__(self, id: str) -> None:
        self.id = id


def main() -> int:
    """Measures, shows, and returns 1 when the target is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outbox", description=__doc__)
    parser.add_argument("--database", required=True, metavar="URL")
    parser.add_argument("--broker", required=True, metavar="URL")
    parser.add_argument("--rows", type=int, default=20_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    options = parser.parse_args()
    engine = create_engine(options.database)
    postgresql = engine.dialect.name == "postgresql"
    tables = Tables(f"bench_{uuid.uuid4().hex[:8]}" if postgresql else None)
    if tables.schema:
        with engine.begin() as connection:
            connection.execute(CreateSchema(tables.schema))
    create_tables(engine, tables)
    effects = Table("bench_effects", MetaData(schema=tables.schema), *_columns())
    effects.create(engine, checkfirst=True)
    measured: dict[str, list[float]] = {title: [] for title, *_ in CASES}
    overhead: dict[str, list[float]] = {}
    try:
        for _ in range(options.rounds):
            for title, ordered, keys, relays in CASES:
                rate = relay(engine, tables, options.broker, options.rows, ordered, keys, relays)
                measured[title].append(rate)
            for title, micros in inbox(engine, tables, effects, options.rows // 10).items():
                overhead.setdefault(title, []).append(micros)
    finally:
        if tables.schema:
            with engine.begin() as connection:
                connection.execute(DropSchema(tables.schema, cascade=True))
    results: dict[str, Any] = {
        "database": engine.dialect.name,
        "broker": redact(options.broker),
        "rows": options.rows,
        "machine": machine.describe(),
        "relay": {title: {"rounds": values, **spread(values)} for title, values in measured.items()},
        "inbox": {title: {"rounds": values, **spread(values)} for title, values in overhead.items()},
        "target": TARGET,
        "met": spread(measured["unordered"])["median"] >= TARGET,
    }
    _show(results)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    return 0 if results["met"] or not postgresql else 1


def _columns() -> list[Column[Any]]:
    return [Column("number", Integer, primary_key=True), Column("id", String(64))]


def _show(results: dict[str, Any]) -> None:
    out = Console(width=None if sys.stdout.isatty() else 120)
    described = results["machine"]
    out.print(f"{described['cpu']}, {described['cores']} cores, load {described['load']}, {described['date']}")
    out.print(f"{results['database']}, {results['broker']}, {results['rows']} rows of {len(PAYLOAD)} bytes")
    for title, unit, rows in (("relay", "rows/s", results["relay"]), ("inbox", "us/message", results["inbox"])):
        table = Shown(title, f"median {unit}", "min", "max", box=None, pad_edge=False)
        for name, value in rows.items():
            table.add_row(name, f"{value['median']:,.0f}", f"{value['min']:,.0f}", f"{value['max']:,.0f}")
        out.print(table)
    out.print(
        f"target {results['target']:,.0f} rows/s unordered on PostgreSQL: {'met' if results['met'] else 'NOT met'}"
    )


if __name__ == "__main__":
    sys.exit(main())
