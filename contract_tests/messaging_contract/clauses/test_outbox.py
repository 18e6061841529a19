"""The outbox: what is committed is published, as it was added, and nothing else is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from messaging import Message
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause


@clause(
    "outbox.as-added",
    "What a committed transaction added to the outbox is published as it was added, with the same id; what one "
    "that was rolled back added is not.",
    controls="database",
)
def test_as_added(bench: Bench) -> None:
    source, scene = bench.source(), bench.scene()
    consumer = bench.consume(source)
    message = Message(
        b"\x00\xff\xfe",
        key="customer-42",
        type="order.placed",
        headers={"trace": "1", "quote": "\"'\\ü"},
        id=str(uuid4()),
        content_type="application/avro",
        correlation_id="c",
        reply_to="r",
    )
    with scene.engine.connect() as connection, connection.begin() as transaction:
        scene.outbox.add(connection, source.destination, "rolled back")
        transaction.rollback()
    with scene.engine.begin() as connection:
        assert scene.outbox.add(connection, source.destination, message) == message.id
    with scene.relay():
        scene.published()
    found = []

    def arrived() -> bool:
        found.extend(consumer.receive(10, 0.2))
        return bool(found)

    bench.eventually(arrived, "a message that was added to the outbox")
    for delivery in found:
        delivery.ack()
    scene.nothing_more(consumer)
    assert [(d.id, d.body, d.key, d.type, dict(d.headers), d.content_type) for d in found] == [
        (message.id, message.body, message.key, message.type, dict(message.headers), message.content_type)
    ]
    assert (found[0].message.correlation_id, found[0].message.reply_to) == ("c", "r")


@clause(
    "outbox.late-commit",
    "A row is published once its transaction commits and not before, also when a later one was published meanwhile.",
    on=QUEUE,
    controls="database",
)
def test_late_commit(bench: Bench) -> None:
    queue, scene = bench.queue(), bench.scene()
    consumer = bench.consume(queue)
    with scene.relay() as relay, ThreadPoolExecutor(1) as pool, scene.engine.connect() as late:
        transaction = late.begin()
        scene.outbox.add(late, queue, Message(b"1", key="a"))
        other = pool.submit(scene.add, queue, ("b", 2))
        before = []
        if scene.several_writers:
            other.result(10)
            before = scene.read(consumer, 1)
            scene.rounds_pass(relay)
            scene.nothing_more(consumer)
        else:  # the other one waits, and the relay too
            scene.nothing_more(consumer, 1.0)
        transaction.commit()
        other.result(10)
        found = before + scene.read(consumer, 2 - len(before))
    assert {each[:2] for each in found} == {("a", 1), ("b", 2)}
    assert [each[:2] for each in before] == ([("b", 2)] if scene.several_writers else [])


@clause(
    "outbox.confirmed-first",
    "A row stays in the outbox until the broker has confirmed its message, and no longer.",
    on=QUEUE,
    controls="database",
)
def test_confirmed_first(bench: Bench) -> None:
    queue, scene = bench.queue(), bench.scene()
    scene.add(queue, ("a", 1), ("b", 1))
    with scene.gate() as gate, scene.relay(gate):
        gate.wait()
        before = scene.waiting()
        gate.open()
        scene.published()
    assert before == 2
    scene.read(bench.consume(queue), 2)
