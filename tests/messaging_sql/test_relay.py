from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import Engine, create_engine, delete, text, update

import messaging
from messaging import (
    AuthenticationFailed,
    Broker,
    Closed,
    ConfigurationError,
    Message,
    MessagingError,
    PublishTimeout,
    Queue,
)
from messaging_contract.faults import TcpProxy
from messaging_contract.harness import Harness
from messaging_memory.sender import MemorySender
from messaging_sql import DatabaseUnavailable, Outbox, Relay, Tables, TablesMissing, create_tables
from messaging_sql.database import now


@pytest.fixture
def broker() -> Iterator[Broker]:
    with messaging.connect("memory://", topology=[Queue("orders", ordered=True), Queue("jobs")]) as broker:
        yield broker


@pytest.fixture
def outbox(tables: Tables) -> Outbox:
    return Outbox(tables=tables)


def add(engine: Engine, outbox: Outbox, topic: str, *items: object) -> list[str]:
    with engine.begin() as connection:
        return outbox.add_many(connection, topic, items)


def test_notify_wakes_a_relay_long_before_its_poll(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no NOTIFY")
    with Relay(engine, broker, tables=tables, poll=60.0) as relay:
        eventually(lambda: relay.stats.rounds >= 2)  # the second is the listener's: it listens now
        began = time.monotonic()
        add(engine, outbox, "jobs", 1)
        eventually(lambda: relay.stats.published == 1, 20)
        assert time.monotonic() - began < 10
        add(engine, Outbox(tables=tables, notify=False), "jobs", 2)
        before = relay.stats.published
        relay.wake()
        eventually(lambda: relay.stats.published == before + 1, 20)


def test_a_listener_that_loses_its_connection_does_not_end_the_relay(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no NOTIFY")
    with Relay(engine, broker, tables=tables, poll=0.1) as relay:
        eventually(lambda: relay.stats.rounds >= 2)
        with engine.begin() as connection:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            connection.execute(text(cut))
        add(engine, outbox, "jobs", 1)
        eventually(lambda: relay.stats.published == 1, 20)


def test_a_topic_that_is_not_declared_holds_up_nothing_else(
    engine: Engine,
    tables: Tables,
    outbox: Outbox,
    broker: Broker,
    eventually: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    add(engine, outbox, "later", 1)
    add(engine, outbox, "jobs", 2)
    with Relay(engine, broker, tables=tables, poll=0.1, retry_delay=0.1) as relay:
        eventually(lambda: relay.stats.published == 1)
        eventually(lambda: "'later' is not declared" in caplog.text)
        broker.declare(Queue("later"))
        eventually(lambda: relay.stats.published == 2)
    assert relay.stats.failed == 0, "the row was never the cause"


def test_a_row_without_the_key_that_its_queue_needs_is_parked(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    ids = add(engine, outbox, "orders", Message(b"1", key="a"), Message(b"2"), Message(b"3", key="b"))
    with Relay(engine, broker, tables=tables, poll=0.05, retry_delay=0.05, park_after=2) as relay:
        eventually(lambda: (relay.stats.published, relay.stats.parked) == (2, 1))
        with engine.begin() as connection:
            (row,) = outbox.parked(connection)
            assert (row.id, row.attempts) == (ids[1], 2)
            assert "each message needs a key" in row.error
            assert outbox.requeue(connection) == 1
        eventually(lambda: relay.stats.parked == 2)


def test_without_parking_a_key_waits_until_it_is_mended(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    ids = add(engine, outbox, "orders", Message(b"1", key="a"), Message(b"2", key="a"), Message(b"3", key="b"))
    broken = update(tables.outbox).where(tables.outbox.c.id == uuid.UUID(ids[0]))
    with engine.begin() as connection:
        connection.execute(broken.values(headers="no JSON"))
    with Relay(engine, broker, tables=tables, poll=0.05, retry_delay=0.05, park_after=None) as relay:
        eventually(lambda: relay.stats.failed >= 4)
        assert relay.stats.published == 1
        with engine.begin() as connection:
            connection.execute(broken.values(headers=None))
        eventually(lambda: relay.stats.published == 3)
    with broker.subscribe("orders") as consumer:
        bodies = [delivery.body for delivery in _all(consumer)]
    assert [body for body in bodies if body != b"3"] == [b"1", b"2"]


def test_a_clock_that_was_set_back_holds_no_row_up(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    add(engine, outbox, "jobs", 1)
    with engine.begin() as connection:
        connection.execute(update(tables.outbox).values(attempts=1, retry_at=now() + 3600))
    with Relay(engine, broker, tables=tables, poll=0.05) as relay:
        eventually(lambda: relay.stats.published == 1)


@pytest.mark.parametrize("error", [AuthenticationFailed, PublishTimeout])
def test_a_topic_that_takes_nothing_is_left_alone_for_longer_each_time(
    engine: Engine,
    tables: Tables,
    outbox: Outbox,
    broker: Broker,
    eventually: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: type[MessagingError],
) -> None:
    send = MemorySender.send

    def refuse(self: MemorySender, messages: Any, outgoing: Any, done: Any) -> None:
        if outgoing.destination.name == "jobs":
            for index in range(len(messages)):
                done(index, error("publish to 'jobs': no"))
        else:
            send(self, messages, outgoing, done)

    monkeypatch.setattr(MemorySender, "send", refuse)
    add(engine, outbox, "jobs", *range(20))
    add(engine, outbox, "orders", *(Message(b"1", key=f"k{n}") for n in range(20)))
    with Relay(engine, broker, tables=tables, poll=0.05, retry_delay=0.05, batch=10) as relay:
        eventually(lambda: relay.stats.published == 20)
        eventually(lambda: "'jobs', again in 0.2 s" in caplog.text)
        monkeypatch.undo()
        eventually(lambda: relay.stats.published == 40)
    assert relay.stats.failed == 0, "the rows were never the cause"


def _all(consumer: messaging.Consumer) -> Iterator[messaging.Delivery]:
    while deliveries := consumer.receive(100, timeout=0.2):
        for delivery in deliveries:
            delivery.ack()
            yield delivery


def test_several_relays_and_writers_at_once_keep_each_key_in_order(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    def write(writer: int) -> list[str]:
        """Keys of its own, so that they have an order; several in a transaction, some of which are rolled back."""
        ids: list[str] = []
        for number in range(60):
            with engine.connect() as connection:
                items = [Message(str(number).encode(), key=f"{writer}-{key}") for key in range(5)]
                added = outbox.add_many(connection, "orders", items)
                if number % 7 == 3:
                    connection.rollback()
                else:
                    connection.commit()
                    ids += added
        return ids

    relays = [Relay(engine, broker, tables=tables, batch=50, poll=0.02) for _ in range(3)]
    with ExitStack() as stack:
        for relay in relays:
            stack.enter_context(relay)
        with ThreadPoolExecutor(3) as pool:
            added = [id for future in [pool.submit(write, n) for n in range(3)] for id in future.result(60)]
        eventually(lambda: sum(relay.stats.published for relay in relays) == len(added), 60)
    with broker.subscribe("orders") as consumer:
        found = [(delivery.key, int(delivery.body), delivery.id) for delivery in _all(consumer)]
    assert sorted(id for _, _, id in found) == sorted(added), "each once: nothing crashed"
    for key in {key for key, _, _ in found}:
        numbers = [number for k, number, _ in found if k == key]
        assert numbers == sorted(numbers)


def test_missing_tables_and_wrong_options_are_said_at_once(engine: Engine, broker: Broker) -> None:
    with pytest.raises(TablesMissing, match="messaging tables create"):
        Relay(engine, broker, tables=Tables(prefix="nowhere_")).start()
    for wrong in ({"batch": 0}, {"lease": -1}, {"poll": 0}, {"retry_delay": float("nan")}, {"park_after": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Relay(engine, broker, **wrong)  # type: ignore[arg-type]
    unreachable = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        Relay(unreachable, broker).start()


def test_tables_that_something_else_made_are_not_complete(engine: Engine, tables: Tables, broker: Broker) -> None:
    with engine.begin() as connection:
        connection.execute(delete(tables.lanes).where(tables.lanes.c.lane > 3))
    with pytest.raises(TablesMissing, match="has not its 64 rows"):
        Relay(engine, broker, tables=tables).start()
    create_tables(engine, tables)
    with Relay(engine, broker, tables=tables):
        pass


def test_a_broker_that_was_closed_ends_the_relay(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    relay = Relay(engine, broker, tables=tables, poll=0.05)
    relay.start()
    broker.close()
    add(engine, outbox, "jobs", 1)
    eventually(lambda: relay._thread is not None and not relay._thread.is_alive())
    with pytest.raises(Closed):
        relay.stop()
    with engine.connect() as connection:
        assert outbox.backlog(connection).waiting == 1


def test_a_database_that_goes_away_and_comes_back_costs_no_row_and_makes_no_duplicate(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    down = True
    ids = add(engine, outbox, "jobs", *range(20))
    relay = Relay(engine, broker, tables=tables, poll=0.05)
    settle = relay._settle

    def settle_while_down(outcome: object) -> None:
        """The moment that hurts: the broker has it, and the database cannot be told."""
        if down:
            raise DatabaseUnavailable("it is down")
        settle(outcome)  # type: ignore[arg-type]

    relay._settle = settle_while_down  # type: ignore[method-assign]
    with relay:
        eventually(lambda: relay.stats.database_errors >= 2)
        down = False
        eventually(lambda: relay.stats.published == 20)
    with broker.subscribe("jobs") as consumer:
        assert sorted(delivery.id for delivery in _all(consumer)) == sorted(ids)


def test_connections_that_the_database_drops_are_made_again(
    engine: Engine, tables: Tables, outbox: Outbox, broker: Broker, eventually: Callable[..., None]
) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no connection that could be cut")
    own = create_engine(engine.url, connect_args={"application_name": tables.schema})
    with Relay(own, broker, tables=tables, poll=0.05) as relay:
        eventually(lambda: relay.stats.rounds >= 2)
        with engine.begin() as connection:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"
            connection.execute(text(cut), {"name": tables.schema})
        eventually(lambda: relay.stats.database_errors >= 1)
        add(engine, outbox, "jobs", 1)
        eventually(lambda: relay.stats.published == 1)
    own.dispose()


@pytest.mark.only("rabbitmq:4")
def test_a_broker_that_is_down_is_not_hammered_and_nothing_is_lost(
    rabbitmq: Harness, engine: Engine, tables: Tables, outbox: Outbox, eventually: Callable[..., None]
) -> None:
    assert rabbitmq.url is not None
    name = f"outbox-{uuid.uuid4().hex[:12]}"
    parts = urlsplit(rabbitmq.url)
    proxy = TcpProxy((parts.hostname or "", parts.port or 5672))
    through = urlunsplit(parts._replace(netloc=f"guest:guest@127.0.0.1:{proxy.port}", query="reconnect_max=0.3"))
    try:
        with messaging.connect(through, topology=Queue(name)) as broker:
            with Relay(engine, broker, tables=tables, poll=0.05, lease=3.0) as relay:
                add(engine, outbox, name, 0)
                eventually(lambda: relay.stats.published == 1)
                proxy.cut()
                rounds = relay.stats.rounds
                ids = add(engine, outbox, name, *range(1, 50))
                eventually(lambda: relay.stats.broker_errors >= 2, 30)
                assert relay.stats.rounds - rounds < 20
                assert relay.stats.failed == 0, "the rows are not the cause"
                proxy.resume()
                eventually(lambda: relay.stats.published == 50, 60)
            with broker.subscribe(name) as consumer:
                found = [delivery.id for delivery in _all(consumer)]
            broker.delete(Queue(name))
        assert set(ids) <= set(found)
    finally:
        proxy.close()
