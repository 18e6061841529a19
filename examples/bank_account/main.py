"""A bank account with event sourcing and CQRS: events are the truth, balances are read models made of them.

python main.py             # opens accounts, moves money from several threads, shows the read models, rebuilds them
python main.py balances    # what the read model says
python main.py rebuild     # makes the read models again, from the first event on
python main.py --database postgresql+psycopg://user:password@host/db   # another database than SQLite in bank.db
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import read_models
from account import EVENTS, Account
from sqlalchemy import Engine, create_engine, select

import messaging
from messaging import Topic
from messaging_sql import EventStore, Outbox, Relay, Repository, create_tables, to_outbox

TOPIC = os.environ.get("ACCOUNTS_TOPIC", "accounts")
OWNERS = ("Ada", "Bob", "Eve")
DEPOSITS = 20


def open_bank(database: str) -> tuple[Engine, EventStore]:
    engine = create_engine(database)
    create_tables(engine)
    read_models.metadata.create_all(engine)
    return engine, EventStore(engine, EVENTS, publish=to_outbox(Outbox(), TOPIC))


def demo(engine: Engine, store: EventStore) -> None:
    accounts = Repository(store, Account, snapshot_every=10)
    projections = read_models.read_models(store)
    stop = threading.Event()
    topology = Topic(TOPIC, "notification")
    with (
        messaging.connect(topology=topology, config_file=Path(__file__).with_name("messaging.toml")) as broker,
        broker.subscribe(TOPIC, group="notification") as notification,
        Relay(engine, broker),
        ThreadPoolExecutor(8) as pool,
    ):
        running = [pool.submit(projection.run, stop) for projection in projections]
        try:
            ids = [uuid.uuid4().hex[:8] for _ in OWNERS]
            for id, owner in zip(ids, OWNERS, strict=True):
                account = Account(id)
                account.open(owner)
                accounts.save(account)

            def deposit(number: int) -> None:  # all at once on the same accounts: conflicts are decided again
                accounts.update(ids[number % len(ids)], lambda account: account.deposit(100), attempts=100)

            list(pool.map(deposit, range(DEPOSITS * len(ids))))
            try:
                accounts.update(ids[0], lambda account: account.withdraw(1_000_000))
            except ValueError as error:
                print(f"refused: {error}")
            accounts.update(ids[0], lambda account: account.withdraw(500))
            end = store.position()
            if not all(projection.wait_for(end, 30) for projection in projections):
                sys.exit("the read models did not catch up")
            show_balances(engine, ids)
            wanted = {event.id for id in ids for event in store.read_stream(f"account-{id}")}
            print(f"{len(wanted)} events, {len(received(notification, wanted))} received by notification")
        finally:
            stop.set()
            for projection in running:
                projection.result()
    for projection in projections:
        projection.rebuild()
    show_balances(engine, ids)


def received(consumer: messaging.Consumer, wanted: set[str]) -> set[str]:
    """The ids that arrived, each counted once however often it came; those of other runs are let pass."""
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while not wanted <= seen and time.monotonic() < deadline:
        for delivery in consumer.receive(100, timeout=1.0):
            seen.add(delivery.id)
            delivery.ack()
    return wanted & seen


def show_balances(engine: Engine, ids: list[str] | None = None) -> None:
    balances = read_models.balances
    query = select(balances).order_by(balances.c.owner, balances.c.account)
    if ids is not None:
        query = query.where(balances.c.account.in_([f"account-{id}" for id in ids]))
    with engine.connect() as connection:
        print(", ".join(f"{row.owner} {row.cents / 100:.2f}" for row in connection.execute(query)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", nargs="?", choices=("demo", "balances", "rebuild"), default="demo")
    parser.add_argument("--database", default="sqlite:///bank.db", help="its SQLAlchemy URL")
    options = parser.parse_args()
    engine, store = open_bank(options.database)
    if options.command == "demo":
        demo(engine, store)
    elif options.command == "balances":
        show_balances(engine)
    else:
        for projection in read_models.read_models(store):
            print(f"{projection.name}: {projection.rebuild()} events applied")


if __name__ == "__main__":
    main()
