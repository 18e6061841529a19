"""Projections: every event has its effect on the read model once, in order. About the database alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from messaging.retry import NO_RETRY
from messaging_contract.bench import Bench
from messaging_contract.clause import DATABASE_ALONE, clause

with suppress(ImportError):  # without SQLAlchemy these clauses are not run, and say so
    from messaging_contract.sql.accounts import Deposited, Opened, balances_from_events
    from messaging_sql import ProjectionFailed

if TYPE_CHECKING:
    from messaging_contract.sql.accounts import Handler
    from messaging_sql import EventStore


class _Crash(BaseException):
    """As a process that ends: nobody handles it."""


@clause(
    "projection.crash",
    "A projection that crashes in the middle of a batch, again and again, has every effect once when it has caught up.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_crash(bench: Bench) -> None:
    scene = bench.scene()
    store, balances = scene.store(), scene.balances()
    _fill(store)
    for after in (1, 3, 7, 12):
        applied = count()

        def crashing(handler: Handler, applied: Any = applied, after: int = after) -> Handler:
            def handle(connection: Any, event: Any) -> None:
                handler(connection, event)
                if next(applied) == after:
                    raise _Crash

            return handle

        with suppress(_Crash):
            scene.projection(balances, store, around=crashing).catch_up()
    projection = scene.projection(balances, store)
    projection.catch_up()
    assert balances.rows() == balances_from_events(store)
    assert projection.lag() == 0


@clause(
    "projection.turns",
    "Two processes of one projection take turns: every effect is there once.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_turns(bench: Bench) -> None:
    scene = bench.scene()
    store, balances = scene.store(), scene.balances()
    both = [scene.projection(balances, store, batch=3, retry=NO_RETRY) for _ in range(2)]
    _fill(store, 20)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: each.catch_up(), both))
    assert balances.rows() == balances_from_events(store)


@clause(
    "projection.rebuild",
    "A read model that is rebuilt is what it was.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_rebuild(bench: Bench) -> None:
    scene = bench.scene()
    store, balances = scene.store(), scene.balances()
    projection = scene.projection(balances, store, retry=NO_RETRY)
    _fill(store)
    projection.catch_up()
    before = balances.rows()
    assert projection.rebuild() == store.position()
    assert balances.rows() == before == balances_from_events(store)


@clause(
    "projection.failure",
    "A handler that raises stops the projection before its event: what comes before is done and stays, what comes "
    "after is not, and once it is mended the projection goes on there.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_failure(bench: Bench) -> None:
    scene, bad = bench.scene(), 8
    store, balances = scene.store(), scene.balances()
    _fill(store)

    def failing(handler: Handler) -> Handler:
        def handle(connection: Any, event: Any) -> None:
            handler(connection, event)
            if event.position == bad:
                raise ValueError("a defect")

        return handle

    projection = scene.projection(balances, store, around=failing, retry=NO_RETRY)
    for _ in range(2):
        with pytest.raises(ProjectionFailed) as caught:
            projection.catch_up()
        assert caught.value.position == bad
        assert isinstance(caught.value.__cause__, ValueError)
        assert projection.position() == bad - 1
    scene.projection(balances, store).catch_up()
    assert balances.rows() == balances_from_events(store)


def _fill(store: EventStore, accounts: int = 5) -> None:
    for number in range(accounts):
        store.append(f"account-{number}", [Opened("Ada"), Deposited(100 + number), Deposited(number)], 0)
