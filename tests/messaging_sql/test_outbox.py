from __future__ import annotations

import uuid

import pytest
from sqlalchemy import Engine, insert, select, update

import messaging
from messaging import EncodeError, InvalidMessage, Message, Queue, TopologyError
from messaging_sql import Outbox, Relay, Tables
from messaging_sql.database import now


def test_a_message_arrives_as_it_was_added(engine: Engine, tables: Tables) -> None:
    message = Message(
        b"\x00\xff\xfe",
        key="customer-42",
        type="order.placed",
        headers={"trace": "1", "quote": "\"'\\ü"},
        id=str(uuid.uuid4()),
        content_type="application/avro",
        timestamp=1_700_000_000.123,
        correlation_id="c",
        reply_to="r",
        expires_at=4_000_000_000.5,
    )
    with engine.begin() as connection:
        assert Outbox(tables=tables).add(connection, Queue("orders"), message) == message.id
    with (
        messaging.connect("memory://", topology=Queue("orders")) as broker,
        Relay(engine, broker, tables=tables),
        broker.subscribe("orders") as consumer,
    ):
        (delivery,) = consumer.receive(timeout=10)
        assert delivery.message == message
        delivery.ack()


def test_fields_are_those_of_publish(engine: Engine, tables: Tables) -> None:
    with engine.begin() as connection:
        Outbox(tables=tables).add(
            connection,
            "orders",
            {"id": 7},
            key="k",
            type="order.placed",
            headers={"a": "b"},
            ttl=60,
            correlation_id="c",
        )
        row = connection.execute(select(tables.outbox)).one()
    assert (row.aggregatetype, row.aggregateid, row.type, row.payload) == ("orders", "k", "order.placed", b'{"id":7}')
    assert (row.content_type, row.headers, row.correlation_id) == ("application/json", '{"a":"b"}', "c")
    assert row.expires_at - row.timestamp == pytest.approx(60_000, abs=1000)
    assert row.id.version == 4


def test_several_at_once_keep_their_order(engine: Engine, tables: Tables) -> None:
    with engine.begin() as connection:
        ids = Outbox(tables=tables).add_many(connection, "orders", [1, Message(b"2", key="k"), "three"])
        found = connection.execute(select(tables.outbox.c.id).order_by(tables.outbox.c.position)).scalars()
        assert [str(one) for one in found] == ids
        assert Outbox(tables=tables).add_many(connection, "orders", []) == []


def test_bad_input_is_refused_before_anything_is_written(engine: Engine, tables: Tables) -> None:
    outbox = Outbox(tables=tables)
    with engine.begin() as connection:
        for broken in ("order-7", "{" + str(uuid.uuid4()) + "}", 7):
            with pytest.raises(InvalidMessage, match="is no UUID in its usual form"):
                outbox.add(connection, "orders", 1, id=broken)  # type: ignore[arg-type]
        with pytest.raises(InvalidMessage, match="NUL"):
            outbox.add(connection, "orders", 1, key="a\0b")
        with pytest.raises(InvalidMessage, match="reserved"):
            outbox.add(connection, "orders", 1, headers={"x-messaging-attempt": "1"})
        with pytest.raises(EncodeError):
            outbox.add(connection, "orders", object())
        with pytest.raises(TopologyError, match="not a valid topic name"):
            outbox.add(connection, "no such--name", 1)
        with pytest.raises(InvalidMessage, match="carries its own fields"):
            outbox.add(connection, "orders", Message(b""), key="k")
        with pytest.raises(InvalidMessage):
            outbox.add_many(connection, "orders", [1, Message(b"", key="")])
        assert outbox.backlog(connection).waiting == 0


def test_backlog_tells_what_waits_and_for_how_long(engine: Engine, tables: Tables) -> None:
    outbox = Outbox(tables=tables)
    with engine.begin() as connection:
        empty = outbox.backlog(connection)
        ids = outbox.add_many(connection, "orders", [1, 2, 3])
        connection.execute(update(tables.outbox).values(timestamp=tables.outbox.c.timestamp - 60_000))
        rows = tables.outbox.c.id
        connection.execute(update(tables.outbox).where(rows == uuid.UUID(ids[0])).values(attempts=1))
        connection.execute(
            update(tables.outbox).where(rows == uuid.UUID(ids[1])).values(parked_at=now(), error="e", attempts=5)
        )
        found = outbox.backlog(connection)
        assert (empty.waiting, empty.oldest) == (0, 0.0)
        assert (found.waiting, found.failing, found.parked) == (2, 1, 1)
        assert found.oldest == pytest.approx(60, abs=5)


def test_parked_rows_are_listed_requeued_and_discarded(engine: Engine, tables: Tables) -> None:
    outbox = Outbox(tables=tables)
    with engine.begin() as connection:
        ids = outbox.add_many(connection, "orders", [Message(b"1", key="k", type="t"), 2, 3, 4])
        first_three = tables.outbox.c.id.in_([uuid.UUID(one) for one in ids[:3]])
        connection.execute(
            update(tables.outbox).where(first_three).values(parked_at=now(), error="too large", attempts=5)
        )
        listed = outbox.parked(connection)
        assert {row.id for row in listed} == set(ids[:3])
        assert (listed[0].topic, listed[0].error, listed[0].attempts) == ("orders", "too large", 5)
        assert outbox.requeue(connection, [ids[0], ids[3]]) == 1
        assert outbox.discard(connection, [ids[1], ids[3]]) == 1, "what waits is not dropped"
        assert outbox.requeue(connection) == 1
        assert outbox.backlog(connection).waiting == 3
        with pytest.raises(InvalidMessage, match="UUID"):
            outbox.requeue(connection, ["seven"])


def test_rows_of_another_program_are_published_too(engine: Engine, tables: Tables) -> None:
    """What writes for Debezium writes no lane, headers or content type; only `lane` and `timestamp` are demanded."""
    with engine.begin() as connection:
        connection.execute(
            insert(tables.outbox).values(
                id=uuid.uuid4(), aggregatetype="orders", aggregateid="k", type="t", payload=b"{}", lane=0, timestamp=0
            )
        )
    with (
        messaging.connect("memory://", topology=Queue("orders")) as broker,
        Relay(engine, broker, tables=tables),
        broker.subscribe("orders") as consumer,
    ):
        (delivery,) = consumer.receive(timeout=10)
        assert (delivery.body, delivery.key, delivery.content_type) == (b"{}", "k", None)
        delivery.ack()
