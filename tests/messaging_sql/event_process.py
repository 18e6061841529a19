"""A process of its own, for the tests of the event store: python event_process.py ROLE URL SCHEMA ARGUMENTS...

writer NUMBER EVENTS    appends to a stream of its own, and counts up the one that all share
projector               keeps the read model up to date, slowly, until it is killed
"""

from __future__ import annotations

import sys
import threading

from sqlalchemy import create_engine

from messaging_contract.sql.accounts import Balances, Deposited, account_store
from messaging_sql import Expected, Tables, retry_conflicts


def main(role: str, url: str, schema: str, *arguments: str) -> None:
    patient = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    engine = create_engine(url, **patient)
    store = account_store(engine, Tables(None if schema == "-" else schema))
    print("ready", flush=True)
    if role == "writer":
        number, count = map(int, arguments)

        def increment() -> None:
            version = store.version("account-shared")
            store.append("account-shared", [Deposited(version)], version)

        for _ in range(count):
            store.append(f"account-{number}", [Deposited(1)], Expected.ANY)
            retry_conflicts(increment, attempts=1000, delay=0.002)
    else:
        balances = Balances(engine, store.tables.metadata)
        balances.projection(store, batch=7).run(threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
