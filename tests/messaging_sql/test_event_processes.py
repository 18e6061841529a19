"""The event store and a projection with several processes at work, some of which are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from messaging_contract.sql.accounts import Balances, Deposited, Opened, account_store, balances_from_events
from messaging_sql import EventStore, Expected, Tables, VersionConflict

SCRIPT = Path(__file__).with_name("event_process.py")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(database_url: str, tables: Tables) -> Iterator[Start]:
    """Starts a process of event_process.py, and waits until it is at work."""
    processes: list[subprocess.Popen[str]] = []

    def start(role: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(SCRIPT), role, database_url, tables.schema or "-", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def store(engine: Engine, tables: Tables) -> EventStore:
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode=WAL"))
    return account_store(engine, tables)


def test_writers_in_processes_and_a_reader_beside_them(start: Start, store: EventStore) -> None:
    writers, each = 4, 25
    processes = [start("writer", number, each) for number in range(writers)]
    read: list[int] = []
    while any(process.poll() is None for process in processes):
        read.extend(event.position for event in store.read_all(after=len(read)))
        assert read == list(range(1, len(read) + 1))  # nothing comes that was passed already
    assert [process.returncode for process in processes] == [0] * writers
    assert store.position() == 2 * writers * each
    shared = [event.value.cents for event in store.read_stream("account-shared")]
    assert shared == list(range(writers * each))
    for number in range(writers):
        assert store.version(f"account-{number}") == each


def test_a_projection_that_is_killed_goes_on_where_it_was(
    start: Start, store: EventStore, engine: Engine, tables: Tables, eventually: Callable[..., None]
) -> None:
    balances = Balances(engine, tables.metadata)
    projection = balances.projection(store)

    def write() -> None:
        for number in range(40):
            store.append(f"account-{number}", [Opened("Ada"), *[Deposited(number)] * 5], 0)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        for milestone in (10, 60, 120):
            runner = start("projector")
            eventually(lambda wanted=milestone: projection.position() >= wanted, timeout=30)
            runner.kill()
            assert runner.wait(10) < 0
        writing.result()
    runners = [start("projector"), start("projector")]  # and two at once, one of which is killed
    eventually(lambda: projection.position() >= 200, timeout=30)
    runners[0].kill()
    eventually(lambda: projection.lag() == 0, timeout=30)
    assert balances.rows() == balances_from_events(store)
    assert len(balances.rows()) == 40


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_too_old_to_see_the_others_conflicts(store: EventStore, engine: Engine, level: str) -> None:
    with engine.connect().execution_options(isolation_level=level) as old:
        assert store.position(old) == 0  # from here on it sees nothing newer
        store.append("account-1", [Opened("Ada")], 0)
        with pytest.raises(VersionConflict, match="too old to see") as caught:
            store.append("account-2", [Opened("Bob")], Expected.ANY, connection=old)
        assert caught.value.actual is None
    assert [event.stream for event in store.read_all()] == ["account-1"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_slow_writer_holds_up_writers_and_no_reader(store: EventStore, engine: Engine) -> None:
    store.append("account-1", [Opened("Ada")], 0)
    with engine.connect() as slow, ThreadPoolExecutor(3) as pool:
        transaction = slow.begin()
        store.append("account-2", [Opened("Bob")], 0, connection=slow)
        others = [pool.submit(store.append, f"account-{number}", [Opened("Eve")], 0) for number in (3, 4, 5)]
        assert [event.stream for event in store.read_all()] == ["account-1"]
        assert not any(other.done() for other in others)
        transaction.rollback()
        assert sorted(other.result(10).position for other in others) == [2, 3, 4]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_engine_of_a_stricter_level_makes_no_conflicts(database_url: str, tables: Tables) -> None:
    engine = create_engine(database_url, isolation_level="SERIALIZABLE")
    store = account_store(engine, tables)

    def write(number: int) -> None:
        for _ in range(20):
            store.append(f"account-{number}", [Deposited(1)], Expected.ANY)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [event.position for event in store.read_all()] == list(range(1, 81))
    engine.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_projection_outlives_its_connections(
    database_url: str, store: EventStore, engine: Engine, tables: Tables, eventually: Callable[..., None]
) -> None:
    name = f"projection of {tables.schema}"
    cut = create_engine(database_url, connect_args={"application_name": name})
    balances = Balances(engine, tables.metadata)
    projection = balances.projection(account_store(cut, tables), batch=3, on_failure="park")
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(projection.run, stop)
        try:
            for round_ in range(3):
                for number in range(10):
                    store.append(f"account-{round_}{number}", [Opened("Ada"), Deposited(number)], 0)
                with engine.begin() as connection:
                    ended = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = :name"
                    connection.execute(text(ended), {"name": name})
            eventually(lambda: balances.rows() == balances_from_events(store), timeout=30)
        finally:
            stop.set()
        running.result(10)
    assert projection.parked() == []  # it was not the events' fault
    cut.dispose()
