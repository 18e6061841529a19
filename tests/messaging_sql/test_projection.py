from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, MetaData, create_engine, func, select

from messaging import ConfigurationError, RetryPolicy
from messaging.retry import NO_RETRY
from messaging_contract.sql.accounts import Balances, Closed, Deposited, Opened, account_store, balances_from_events
from messaging_sql import (
    EventStore,
    Projection,
    ProjectionFailed,
    Recorded,
    Tables,
    TablesMissing,
    UnknownEventType,
    create_tables,
)


@pytest.fixture
def store(engine: Engine, tables: Tables) -> EventStore:
    return account_store(engine, tables)


@pytest.fixture
def balances(engine: Engine, tables: Tables) -> Balances:
    return Balances(engine, tables.metadata)


def fill(store: EventStore, accounts: int = 4) -> None:
    for number in range(accounts):
        store.append(f"account-{number}", [Opened("Ada"), Deposited(number), Closed()], 0)


def test_it_catches_up_and_says_how_far_it_is(store: EventStore, balances: Balances) -> None:
    projection = balances.projection(store, batch=3)
    assert (projection.position(), projection.lag(), projection.catch_up()) == (0, 0, 0)
    fill(store)
    assert (projection.position(), projection.lag()) == (0, 12)
    assert projection.catch_up() == 8
    # What it does not handle is behind it too.
    assert (projection.position(), projection.lag(), projection.catch_up()) == (12, 0, 0)
    assert balances.rows() == balances_from_events(store)


def test_several_read_models_go_at_their_own_pace(store: EventStore, balances: Balances) -> None:
    fill(store)
    projection = balances.projection(store)
    projection.catch_up()
    closed: list[str] = []
    other = Projection("closed", store, {Closed: lambda connection, event: closed.append(event.stream)})
    assert (projection.lag(), other.lag()) == (0, 12)
    other.catch_up()
    assert closed == [f"account-{number}" for number in range(4)]
    assert balances.rows() == balances_from_events(store)


def test_a_category(store: EventStore) -> None:
    fill(store, 1)
    store.append("savings-1", [Deposited(7)], 0)
    seen: list[str] = []
    projection = Projection(
        "savings", store, {Deposited: lambda connection, event: seen.append(event.stream)}, category="savings"
    )
    assert projection.catch_up() == 1
    assert seen == ["savings-1"]
    assert projection.lag() == 0


def test_a_read_model_in_another_database(store: EventStore, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'reading.db'}")
    elsewhere = Balances(engine, MetaData())
    if store.tables.schema is None:
        create_tables(engine, store.tables)
        projection = elsewhere.projection(store, engine=engine)
        fill(store)
        projection.catch_up()
        assert elsewhere.rows() == balances_from_events(store)
        with store.engine.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(store.tables.projections)) == 0
    engine.dispose()


def failing(balances: Balances, wrong: Callable[[Recorded], bool]) -> Callable[[Connection, Recorded], None]:
    def deposited(connection: Connection, event: Recorded) -> None:
        balances.deposited(connection, event)
        if wrong(event):
            raise ValueError("a defect")

    return deposited


def projection_of(store: EventStore, balances: Balances, handler: object, **options: object) -> Projection:
    handlers = {Opened: balances.opened, Deposited: handler}
    return Projection("balances", store, handlers, clear=balances.clear, **options)  # type: ignore[arg-type]


def test_a_handler_that_fails_for_a_while_is_tried_again(store: EventStore, balances: Balances) -> None:
    fill(store)
    left = [1, 1]
    projection = projection_of(
        store,
        balances,
        failing(balances, lambda event: event.position == 5 and bool(left and left.pop())),
        retry=RetryPolicy(attempts=3, delays=(0.001,)),
    )
    assert projection.catch_up() == 8
    assert left == []
    assert balances.rows() == balances_from_events(store)


def test_it_stops_and_says_where_and_why(store: EventStore, balances: Balances) -> None:
    fill(store)
    projection = projection_of(store, balances, failing(balances, lambda event: event.position == 5), retry=NO_RETRY)
    with pytest.raises(
        ProjectionFailed, match=r"'balances' stopped before position 5 .*ValueError: a defect"
    ) as caught:
        projection.catch_up()
    assert (caught.value.name, caught.value.position) == ("balances", 5)
    assert (projection.position(), projection.lag()) == (4, 8)
    assert balances.rows() == {"account-0": 0, "account-1": 0}


def test_parked_events_are_remembered_and_can_be_applied_later(store: EventStore, balances: Balances) -> None:
    fill(store)
    mended: list[int] = []
    projection = projection_of(
        store,
        balances,
        failing(balances, lambda event: event.position in (5, 8) and not mended),
        retry=NO_RETRY,
        on_failure="park",
    )
    assert projection.catch_up() == 6
    assert projection.lag() == 0
    assert [(each.position, each.error) for each in projection.parked()] == [
        (5, "ValueError: a defect"),
        (8, "ValueError: a defect"),
    ]
    assert balances.rows() == {"account-0": 0, "account-1": 0, "account-2": 0, "account-3": 3}
    with pytest.raises(ProjectionFailed, match="position 5"):
        projection.retry_parked()
    assert len(projection.parked()) == 2
    mended.append(1)
    assert projection.retry_parked() == 2
    assert projection.parked() == []
    assert balances.rows() == balances_from_events(store)


def test_a_rebuild_forgets_what_was_parked(store: EventStore, balances: Balances) -> None:
    fill(store)
    wrong = [5]
    projection = projection_of(
        store, balances, failing(balances, lambda event: event.position in wrong), retry=NO_RETRY, on_failure="park"
    )
    projection.catch_up()
    wrong.clear()
    assert projection.rebuild() == 8
    assert projection.parked() == []
    assert balances.rows() == balances_from_events(store)


def test_an_event_that_does_not_decode_stops_it(store: EventStore, balances: Balances) -> None:
    fill(store, 1)
    with store.engine.begin() as connection:
        events = store.tables.events
        connection.execute(events.update().where(events.c.position == 2).values(schema=9))
    projection = balances.projection(store, retry=NO_RETRY)
    with pytest.raises(ProjectionFailed, match="a newer program wrote it") as caught:
        projection.catch_up()
    assert isinstance(caught.value.__cause__, UnknownEventType)


def test_it_runs_beside_the_writers(store: EventStore, balances: Balances) -> None:
    projection = balances.projection(store)
    stop = threading.Event()
    running = threading.Thread(target=projection.run, args=(stop,))
    running.start()
    try:
        fill(store)
        assert projection.wait_for(store.position(), timeout=10)
        assert balances.rows() == balances_from_events(store)
        fill_again = store.append("account-9", [Opened("Bob")], 0)
        assert projection.wait_for(fill_again.position, timeout=10)
        assert not projection.wait_for(fill_again.position + 1, timeout=0.05)
    finally:
        stop.set()
        running.join(10)
    assert not running.is_alive()


def test_missing_tables_name_the_command(engine: Engine) -> None:
    store = account_store(engine, Tables(prefix="nowhere_"))
    projection = Projection("balances", store, {Opened: lambda connection, event: None})
    with pytest.raises(TablesMissing, match="messaging tables create"):
        projection.catch_up()
    with pytest.raises(TablesMissing, match="messaging tables create"):
        projection.parked()


def test_wrong_projections(store: EventStore) -> None:
    handlers = {Opened: lambda connection, event: None}
    with pytest.raises(ConfigurationError, match="name"):
        Projection("", store, handlers)
    with pytest.raises(ConfigurationError, match="needs handlers"):
        Projection("a", store, {})
    with pytest.raises(ConfigurationError, match="positive batch"):
        Projection("a", store, handlers, batch=0)
    with pytest.raises(UnknownEventType, match="int is not a registered event"):
        Projection("a", store, {int: lambda connection, event: None})
    with pytest.raises(ConfigurationError, match="clear"):
        Projection("a", store, handlers).rebuild()
