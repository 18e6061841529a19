"""The event store: no update is lost, no event is skipped. About the database alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, Event
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from messaging_contract.bench import Bench
from messaging_contract.clause import DATABASE_ALONE, clause

with suppress(ImportError):  # without SQLAlchemy these clauses are not run, and say so
    from sqlalchemy import update

    from messaging_contract.sql.accounts import Account, Deposited, Opened
    from messaging_sql import DuplicateEvent, Expected, NewEvent, VersionConflict, retry_conflicts, to_outbox

if TYPE_CHECKING:
    from messaging_sql import EventStore, Recorded

_WRITERS = 4


@clause(
    "event_store.lost-update",
    "Of several that append what they decided on the version they have read, none overwrites another's decision.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_lost_update(bench: Bench) -> None:
    store, each = bench.scene().store(), 15

    all_have_read = Barrier(_WRITERS)

    def work(_: int) -> None:
        first = iter((True,))

        def increment() -> None:
            seen = list(store.read_stream("account-1"))
            if next(first, False):  # so that they do meet, however fast each of them is
                all_have_read.wait(10)
            store.append("account-1", [Deposited(len(seen))], len(seen))

        for _ in range(each):
            retry_conflicts(increment, attempts=1000, delay=0.001)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(work, range(_WRITERS)))
    assert [event.value.cents for event in store.read_stream("account-1")] == list(range(_WRITERS * each))


@clause(
    "event_store.conflict",
    "An append with another version than the stream has raises VersionConflict with the version it has, and writes "
    "nothing.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_conflict(bench: Bench) -> None:
    store = bench.scene().store()
    store.append("account-1", [Opened("Ada")], 0)
    for wrong in (0, 2, Expected.NO_STREAM):
        with pytest.raises(VersionConflict) as caught:
            store.append("account-1", [Deposited(1)], wrong)
        assert caught.value.actual == 1
    assert store.version("account-1") == 1


@clause(
    "event_store.all-or-nothing",
    "An append of several events of which one is refused writes none of them.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_all_or_nothing(bench: Bench) -> None:
    store, given = bench.scene().store(), str(uuid4())
    store.append("account-1", [NewEvent(Opened("Ada"), id=given)], 0)
    with pytest.raises(DuplicateEvent):
        store.append("account-2", [Opened("Bob"), Deposited(1), NewEvent(Deposited(2), id=given)], 0)
    assert [event.stream for event in store.read_all()] == ["account-1"]


@clause(
    "event_store.late-commit",
    "A reader that goes on from its last position gets every event: none before its transaction commits, and none is "
    "skipped that commits late.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_late_commit(bench: Bench) -> None:
    store = bench.scene().store()
    read: list[Recorded] = []

    def read_on() -> None:
        read.extend(store.read_all(after=read[-1].position if read else 0))

    store.append("account-first", [Opened("first")], 0)
    with ThreadPoolExecutor(1) as pool, store.engine.connect() as slow:
        transaction = slow.begin()
        store.append("account-slow", [Opened("slow")], 0, connection=slow)
        fast = pool.submit(store.append, "account-fast", [Opened("fast")], 0)
        _wait_for_a_blocked_writer(store, fast.done)
        read_on()
        assert "account-slow" not in {event.stream for event in read}, "an event that is not committed was read"
        transaction.commit()
        fast.result(10)
    read_on()
    assert sorted(event.stream for event in read) == ["account-fast", "account-first", "account-slow"]
    assert [event.position for event in read] == [event.position for event in store.read_all()]


@clause(
    "event_store.one-order",
    "Readers beside many writers, some of which roll back, see every event once, and all in one order.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_one_order(bench: Bench) -> None:
    store, each = bench.scene().store(), 20
    writing = Event()

    def write(number: int) -> None:
        stream = f"account-{number}"
        for version in range(each):
            if version % 5 == 4:  # one that is rolled back, so that a position that was given is given up
                with store.engine.connect() as connection, connection.begin() as transaction:
                    store.append(stream, [Deposited(-1)], Expected.ANY, connection=connection)
                    transaction.rollback()
            store.append(stream, [Deposited(version)], version)

    def follow(_: int) -> list[tuple[str, int]]:
        position = 0
        seen: list[tuple[str, int]] = []
        while len(seen) < _WRITERS * each:
            last_round = not writing.is_set()
            for event in store.read_all(after=position):
                assert event.position > position
                position = event.position
                seen.append((event.stream, event.version))
            if last_round:
                break
        return seen

    writing.set()
    with ThreadPoolExecutor(_WRITERS + 2) as pool:
        readers = [pool.submit(follow, number) for number in range(2)]
        writers = [pool.submit(write, number) for number in range(_WRITERS)]
        try:
            for writer in writers:
                writer.result()
        finally:
            writing.clear()
        seen = [reader.result() for reader in readers]
    assert len(seen[0]) == len(set(seen[0])) == _WRITERS * each
    assert seen[0] == seen[1] == [(event.stream, event.version) for event in store.read_all()]
    for number in range(_WRITERS):
        mine = [version for stream, version in seen[0] if stream == f"account-{number}"]
        assert mine == list(range(1, each + 1))


@clause(
    "event_store.clock",
    "The order of events is that of their commits, also when the clock went back meanwhile.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_clock(bench: Bench) -> None:
    store = bench.scene().store()
    table = store.tables.events
    for number in range(3):
        at = store.append("account-1", [Deposited(number)], number).position
        with store.engine.begin() as connection:
            connection.execute(update(table).where(table.c.position == at).values(time=3e9 - number))
    assert [event.value.cents for event in store.read_stream("account-1")] == [0, 1, 2]
    assert [event.value.cents for event in store.read_all()] == [0, 1, 2]


@clause(
    "event_store.outbox",
    "Events of a store that publishes through the outbox are stored and published, or neither.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_outbox(bench: Bench) -> None:
    scene = bench.scene()
    store = scene.store(publish=to_outbox(scene.outbox, "accounts"))
    with store.engine.connect() as connection, connection.begin() as transaction:
        store.append("account-1", [Opened("Ada")], 0, connection=connection)
        transaction.rollback()
    store.append("account-2", [Opened("Bob"), Deposited(1)], 0)
    with pytest.raises(VersionConflict):
        store.append("account-2", [Deposited(1)], 0)
    assert scene.outbox_ids() == [event.id for event in store.read_all()]


@clause(
    "event_store.snapshot",
    "An aggregate with snapshots is what its events say, also when they have gone on since the last snapshot.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_snapshot(bench: Bench) -> None:
    scene = bench.scene()
    store = scene.store()
    repository = scene.repository(store, Account, snapshot_every=10)
    account = Account("1")
    account.open("Ada")
    for cents in range(25):
        account.deposit(cents)
        repository.save(account)
    loaded = repository.load("1")
    assert (loaded.owner, loaded.balance, loaded.version) == ("Ada", sum(range(25)), 26)
    store.append("account-1", [Deposited(1000)], 26)  # by a program that makes no snapshots
    loaded = repository.load("1")
    assert (loaded.balance, loaded.version) == (sum(range(25)) + 1000, 27)
    loaded.withdraw(1300)
    repository.save(loaded)
    assert repository.load("1").balance == 0


def _wait_for_a_blocked_writer(store: EventStore, done: Callable[[], bool]) -> None:
    """Until the other append is through, or waits; SQLite cannot tell, so there it is given a moment."""
    postgresql = store.engine.dialect.name == "postgresql"
    deadline = time.monotonic() + (10.0 if postgresql else 0.2)
    while not done() and time.monotonic() < deadline:
        if postgresql:
            with store.engine.connect() as connection:
                blocked = connection.exec_driver_sql(
                    "select count(*) from pg_locks where not granted and locktype = 'advisory'"
                ).scalar_one()
            if blocked:
                return
        Event().wait(0.005)
