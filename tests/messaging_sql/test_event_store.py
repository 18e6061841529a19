from __future__ import annotations

import socket
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert

from messaging import ConfigurationError, EncodeError, InvalidMessage
from messaging_contract.sql.accounts import Closed, Deposited, Opened, Withdrawn, account_store, account_types
from messaging_sql import (
    DatabaseUnavailable,
    DuplicateEvent,
    EventStore,
    Expected,
    NewEvent,
    Tables,
    TablesMissing,
    UnknownEventType,
    VersionConflict,
)


@pytest.fixture
def store(engine: Engine, tables: Tables) -> EventStore:
    return account_store(engine, tables)


def test_what_is_appended_is_read(store: EventStore) -> None:
    done = store.append(
        "account-1", [Opened("Ada"), Deposited(5)], Expected.NO_STREAM, correlation_id="c", causation_id="d"
    )
    assert (done.version, done.position) == (2, 2)
    opened, deposited = store.read_stream("account-1")
    assert (opened.stream, opened.version, opened.position, opened.type) == ("account-1", 1, 1, "account.opened")
    assert (opened.value, deposited.value) == (Opened("Ada"), Deposited(5))
    assert (deposited.version, deposited.position, deposited.id) == (2, 2, done.event_id)
    assert uuid.UUID(opened.id) != uuid.UUID(deposited.id)
    assert (opened.correlation_id, opened.causation_id) == ("c", "d")
    assert opened.time == pytest.approx(deposited.time)


@pytest.mark.parametrize("own", [True, False], ids=["own transaction", "the caller's"])
@pytest.mark.parametrize(
    ("there", "expected", "taken"),
    [
        (0, Expected.NO_STREAM, True),
        (0, 0, True),
        (0, 1, False),
        (0, Expected.ANY, True),
        (0, Expected.STREAM_EXISTS, False),
        (2, Expected.NO_STREAM, False),
        (2, 0, False),
        (2, 1, False),
        (2, 2, True),
        (2, 3, False),
        (2, Expected.ANY, True),
        (2, Expected.STREAM_EXISTS, True),
    ],
)
def test_expected_version(
    store: EventStore, engine: Engine, there: int, expected: Expected | int, taken: bool, own: bool
) -> None:
    store.append("account-other", [Opened("Bob")], 0)
    for version in range(there):
        store.append("account-1", [Deposited(version)], version)

    def append() -> int:
        if own:
            return store.append("account-1", [Deposited(9), Deposited(10)], expected).version
        with engine.begin() as connection:
            return store.append("account-1", [Deposited(9), Deposited(10)], expected, connection=connection).version

    if taken:
        assert append() == there + 2
        assert [event.version for event in store.read_stream("account-1")] == list(range(1, there + 3))
    else:
        with pytest.raises(VersionConflict, match="account-1") as caught:
            append()
        assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("account-1", expected, there)
        assert store.version("account-1") == there
    assert [event.position for event in store.read_all()] == list(range(1, store.position() + 1))


def test_an_append_belongs_to_the_callers_transaction(store: EventStore, engine: Engine) -> None:
    with engine.connect() as connection:
        with connection.begin() as transaction:
            store.append("account-1", [Opened("Ada")], 0, connection=connection)
            assert store.version("account-1", connection) == 1
            transaction.rollback()
        with connection.begin():
            assert store.append("account-2", [Opened("Bob")], 0, connection=connection).position == 1
    assert [event.stream for event in store.read_all()] == ["account-2"]


def test_two_appends_in_one_transaction(store: EventStore, engine: Engine) -> None:
    with engine.begin() as connection:
        store.append("account-1", [Opened("Ada")], 0, connection=connection)
        store.append("account-2", [Opened("Bob")], 0, connection=connection)
        store.append("account-1", [Deposited(1)], 1, connection=connection)
    assert [(event.stream, event.version) for event in store.read_all()] == [
        ("account-1", 1),
        ("account-2", 1),
        ("account-1", 2),
    ]


@pytest.mark.parametrize("own", [True, False], ids=["own transaction", "the caller's"])
def test_an_event_id_is_there_once(store: EventStore, engine: Engine, own: bool) -> None:
    given = str(uuid.uuid4())
    store.append("account-1", [NewEvent(Opened("Ada"), id=given)], 0)
    again = [Deposited(1), NewEvent(Opened("Ada"), id=given)]
    with pytest.raises(DuplicateEvent, match="account-2"):
        if own:
            store.append("account-2", again, Expected.ANY)
        else:
            with engine.begin() as connection:
                store.append("account-2", again, Expected.ANY, connection=connection)
    assert [event.id for event in store.read_all()] == [given]


def test_metadata_of_an_event_and_of_the_append(store: EventStore) -> None:
    events = [NewEvent(Opened("Ada"), metadata={"by": "Eve"}), Deposited(1)]
    store.append("account-1", events, 0, metadata={"by": "Bob", "from": "web"})
    assert [event.metadata for event in store.read_all()] == [
        {"by": "Eve", "from": "web"},
        {"by": "Bob", "from": "web"},
    ]


def test_reading_a_stream(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging_sql.event_store._PAGE", 3)  # so that reading takes several pages
    store.append("account-1", [Deposited(n) for n in range(10)], 0)
    store.append("account-10", [Opened("Bob")], 0)

    def read(**options: Any) -> list[int]:
        return [event.version for event in store.read_stream("account-1", **options)]

    assert read() == list(range(1, 11))
    assert read(from_version=8) == [8, 9, 10]
    assert read(from_version=2, limit=4) == [2, 3, 4, 5]
    assert read(backwards=True) == list(range(10, 0, -1))
    assert read(backwards=True, limit=1) == [10]
    assert read(backwards=True, from_version=9) == [10, 9]
    assert read(limit=0) == []
    assert list(store.read_stream("account-2")) == []


def test_reading_all(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging_sql.event_store._PAGE", 3)
    for number in range(5):
        store.append(f"account-{number}", [Opened("Ada"), Deposited(number)], 0)
        store.append(f"Account-{number}", [Withdrawn(number)], 0)

    def read(**options: Any) -> list[int]:
        return [event.position for event in store.read_all(**options)]

    assert read() == list(range(1, 16))
    assert read(after=12) == [13, 14, 15]
    assert read(after=2, up_to=6, limit=3) == [3, 4, 5]
    assert read(types=[Deposited]) == [2, 5, 8, 11, 14]
    assert read(types=[Opened, Withdrawn], after=10) == [12, 13, 15]
    assert read(category="Account") == [3, 6, 9, 12, 15]
    assert read(category="account", types=[Opened]) == [1, 4, 7, 10, 13]
    assert read(types=[Closed]) == read(category="acc") == read(types=[]) == []


def test_a_clock_that_goes_backwards_changes_no_order(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, now in enumerate((2e9, 1e9, 1.5e9)):
        monkeypatch.setattr("messaging_sql.event_store.time.time", lambda now=now: now)
        store.append("account-1", [Deposited(number)], number)
    assert [(event.version, event.time) for event in store.read_stream("account-1")] == [(1, 2e9), (2, 1e9), (3, 1.5e9)]
    assert [event.value.cents for event in store.read_all()] == [0, 1, 2]


def test_an_event_that_nobody_registered(store: EventStore, engine: Engine, tables: Tables) -> None:
    with pytest.raises(UnknownEventType, match=r"add it with types.add\('...', dict\)"):
        store.append("account-1", [{"owner": "Ada"}], 0)
    store.append("account-1", [Opened("Ada")], 0)
    row = {"position": 2, "stream": "account-1", "version": 2, "category": "account", "id": str(uuid.uuid4())}
    with engine.begin() as connection:
        connection.execute(insert(tables.events).values(row | {"type": "old", "schema": 1, "data": "{}", "time": 0.0}))
    opened, old = store.read_stream("account-1")
    assert opened.value == Opened("Ada")
    with pytest.raises(UnknownEventType, match=r"'old' \(stream 'account-1', version 2, position 2\).*formerly"):
        _ = old.value
    assert old.data == "{}"
    assert len(list(store.read_all(types=[Opened]))) == 1


@pytest.mark.parametrize("stream", ["", "x" * 256, "a\0b", None, 7])
def test_a_wrong_stream(store: EventStore, stream: Any) -> None:
    with pytest.raises(InvalidMessage, match="name of a stream"):
        store.append(stream, [Opened("Ada")], 0)


@pytest.mark.parametrize("expected", [-1, True, "1", None, 1.0])
def test_a_wrong_expected_version(store: EventStore, expected: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected is a version"):
        store.append("account-1", [Opened("Ada")], expected)


def test_what_cannot_be_appended(store: EventStore) -> None:
    with pytest.raises(InvalidMessage, match="no events"):
        store.append("account-1", [], 0)
    with pytest.raises(InvalidMessage, match="UUID"):
        store.append("account-1", [NewEvent(Opened("Ada"), id="7")], 0)
    with pytest.raises(InvalidMessage, match="metadata"):
        store.append("account-1", [Opened("Ada")], 0, metadata={"n": 1})  # type: ignore[dict-item]
    with pytest.raises(EncodeError):
        store.append("account-1", [Deposited(float("nan"))], 0)  # type: ignore[arg-type]
    assert store.position() == 0


def test_text_that_databases_are_particular_about(store: EventStore) -> None:
    text = "\0 ' \" \\ % ü 🎉 \ud7ff"
    store.append("konto-ü'%\"", [Opened(text)], 0, metadata={text: text})
    (event,) = store.read_stream("konto-ü'%\"")
    assert (event.value, event.metadata) == (Opened(text), {text: text})


def test_missing_tables_name_the_command(engine: Engine) -> None:
    store = account_store(engine, Tables(prefix="nowhere_"))
    command = "messaging tables create --database URL --prefix nowhere_"
    for attempt in (
        lambda: store.append("account-1", [Opened("Ada")], 0),
        lambda: list(store.read_all()),
        lambda: list(store.read_stream("account-1")),
        store.position,
    ):
        with pytest.raises(TablesMissing, match=command):
            attempt()


def test_a_database_that_is_down() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = EventStore(create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none"), account_types())
    for attempt in (lambda: store.append("account-1", [Opened("Ada")], 0), lambda: list(store.read_all())):
        with pytest.raises(DatabaseUnavailable) as caught:
            attempt()
        assert caught.value.retryable


def test_an_embedded_database_in_memory() -> None:
    engine = create_engine("sqlite://")
    tables = Tables()
    tables.metadata.create_all(engine)
    store = account_store(engine, tables)
    store.append("account-1", [Opened("Ada")], 0)
    with engine.begin() as connection:
        store.append("account-1", [Deposited(1)], 1, connection=connection)
        assert len(list(store.read_all(connection=connection))) == 2
    assert store.version("account-1") == 2
