"""Appends of several threads at once: written together, and each with an outcome of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, event

from messaging_contract.sql.accounts import Deposited, Opened, account_store
from messaging_sql import (
    Appended,
    DatabaseUnavailable,
    DuplicateEvent,
    EventStore,
    Expected,
    NewEvent,
    Tables,
    VersionConflict,
)
from messaging_sql.event_turns import Append, Turns

from ..conftest import eventually  # noqa: TID252


@pytest.fixture
def store(engine: Engine, tables: Tables) -> EventStore:
    return account_store(engine, tables)


def meet(turns: Turns, calls: Sequence[Callable[[], Appended]]) -> list[Future[Appended]]:
    """Each call in a thread of its own, in this order, all of them waiting before the first one has its turn."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = []
        with turns._turn:
            for number, call in enumerate(calls, 1):
                futures.append(pool.submit(call))
                eventually(lambda number=number: len(turns._waiting) == number)  # type: ignore[misc]
    return futures


def test_threads_that_meet_share_a_commit(store: EventStore, engine: Engine) -> None:
    commits = []
    event.listen(engine, "commit", commits.append)
    calls = [lambda n=n: store.append(f"account-{n}", [Opened("Ada"), Deposited(n)], 0) for n in range(5)]
    done = [future.result() for future in meet(store._turns, calls)]
    assert len(commits) == 1
    assert [each.position for each in done] == [2, 4, 6, 8, 10]
    assert [each.event_id for each in done] == [found.id for found in store.read_all() if found.version == 2]


def test_two_of_one_stream_that_meet(store: EventStore) -> None:
    calls = [lambda n=n: store.append("account-1", [Deposited(n)], 0) for n in range(3)]
    first, *others = meet(store._turns, calls)
    assert first.result().version == 1
    for other in others:
        with pytest.raises(VersionConflict) as caught:
            other.result()
        assert caught.value.actual == 1
    assert [found.value.cents for found in store.read_all()] == [0]


def test_only_the_one_to_blame_fails(store: EventStore) -> None:
    given = str(uuid.uuid4())
    store.append("account-0", [NewEvent(Opened("Ada"), id=given)], 0)
    calls = [
        lambda: store.append("account-1", [Opened("Bob")], 0),
        lambda: store.append("account-2", [NewEvent(Opened("Eve"), id=given)], 0),
        lambda: store.append("account-0", [Deposited(1)], 7),
        lambda: store.append("account-3", [Deposited(1)], Expected.ANY),
    ]
    first, duplicate, conflict, last = meet(store._turns, calls)
    with pytest.raises(DuplicateEvent, match="account-2"):
        duplicate.result()
    with pytest.raises(VersionConflict, match="account-0"):
        conflict.result()
    first.result(), last.result()
    assert sorted((found.stream, found.version) for found in store.read_all()) == [
        ("account-0", 1),
        ("account-1", 1),
        ("account-3", 1),
    ]
    assert [found.position for found in store.read_all()] == [1, 2, 3]


def test_a_database_that_is_lost_is_told_to_each() -> None:
    """Written again, what was committed all the same would be a conflict with itself."""

    def never(append: Append) -> Appended:
        raise AssertionError("written again")

    def lost(appends: Sequence[Append]) -> list[Appended | VersionConflict]:
        raise DatabaseUnavailable("gone")

    turns = Turns(never, lost)
    futures = meet(turns, [lambda: turns.append(Append("account-1", [], 0))] * 3)
    errors = [future.exception() for future in futures]
    assert all(isinstance(error, DatabaseUnavailable) and error.retryable for error in errors)
    assert len({id(error) for error in errors}) == 3


def test_an_interrupted_writer_leaves_nobody_waiting() -> None:
    def never(append: Append) -> Appended:
        raise AssertionError("written again")

    def interrupted(appends: Sequence[Append]) -> list[Appended | VersionConflict]:
        raise KeyboardInterrupt

    turns = Turns(never, interrupted)
    futures = meet(turns, [lambda: turns.append(Append("account-1", [], 0))] * 3)
    errors = [type(future.exception()) for future in futures]
    assert sorted(error.__name__ for error in errors) == [
        "DatabaseUnavailable",
        "DatabaseUnavailable",
        "KeyboardInterrupt",
    ]
    assert not turns._waiting


def test_more_than_fit_into_one_transaction(monkeypatch: pytest.MonkeyPatch, store: EventStore) -> None:
    monkeypatch.setattr("messaging_sql.event_turns._MOST", 2)
    calls = [lambda n=n: store.append(f"account-{n}", [Deposited(n)], 0) for n in range(5)]
    assert sorted(future.result().position for future in meet(store._turns, calls)) == [1, 2, 3, 4, 5]
