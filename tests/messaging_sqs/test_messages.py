"""Messages against a real endpoint: what goes in comes out, or is refused before it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from messaging import Message, Queue, Topic
from messaging.broker import Broker
from messaging.consumer import Consumer
from messaging.delivery import Delivery
from messaging.driver import Outgoing
from messaging.errors import (
    DestinationNotFound,
    InvalidMessage,
    MessageTooLarge,
    PublishFailed,
    UnsupportedCapability,
)
from messaging.options import ProducerOptions
from messaging_sqs.batch import call_batch, publish_failure

Connect = Callable[..., Broker]


def take(consumer: Consumer, count: int, within: float = 15.0) -> list[Delivery]:
    deadline = time.monotonic() + within
    taken: list[Delivery] = []
    while len(taken) < count and time.monotonic() < deadline:
        taken += consumer.receive(count - len(taken), 0.5)
    assert len(taken) == count
    return taken


def test_every_field_arrives(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    sent = Message(
        "grüße\r\n\ttab".encode(),
        key="ключ 1/2",
        type="order.placed",
        headers={"a": "1", "x.y-z_9": "é \n"},
        id="id-1",
        content_type="text/plain",
        timestamp=1700000000.123,
        correlation_id="c",
        reply_to="r",
    )
    broker.publish(name, sent)
    with broker.subscribe(name) as consumer:
        (delivery,) = take(consumer, 1)
        assert delivery.message == sent
        assert delivery.attempt == 1
        delivery.ack()


@pytest.mark.parametrize(
    "headers",
    [
        {"with space": "v", "1digit": "v", "slash/back\\": '"quote"', "..": ".", "AWS.x": "v", "ключ": "значение"},
        {"empty": ""},
        {"type": "not the type", "x-messaging": "not the envelope"},
        {"control": "".join(map(chr, range(128)))},
        {f"h{n}": f"v{n}" for n in range(9)},
        {f"h{n}": f"v{n}" for n in range(11)},
        {f"h{n}": f"v{n}" for n in range(40)},
    ],
)
def test_odd_headers(connect: Connect, name: str, headers: dict[str, str]) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"x", headers=headers, type="t")
    with broker.subscribe(name) as consumer:
        (delivery,) = take(consumer, 1)
        assert (delivery.headers, delivery.type) == (headers, "t")
        delivery.ack()


def test_odd_bodies(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    bodies = [b"", b" ", b"\n", b"-", bytes(range(256)), b"\x00", "\ufffe".encode(), "\U0001f600".encode(), b"a\r\nb"]
    broker.publish_many(name, [Message(body, id=str(n)) for n, body in enumerate(bodies)])
    with broker.subscribe(name) as consumer:
        taken = take(consumer, len(bodies))
        assert {int(d.id): d.body for d in taken} == dict(enumerate(bodies))
        consumer.ack(taken)


def test_sizes_are_counted_as_aws_does(connect: Connect, name: str) -> None:
    limit = 200_000
    broker = connect(Queue(name), max_message_bytes=limit)
    overhead = 400
    broker.publish(name, b"x" * (limit - overhead))
    for body, headers in (
        (b"x" * limit, {}),
        (b"\x00" * (limit * 3 // 4), {}),
        (("é" * (limit // 2)).encode(), {}),
        (b"x", {"h": "v" * limit}),
    ):
        with pytest.raises(MessageTooLarge, match="nothing was sent"):
            broker.publish(name, body, headers=headers)
    with pytest.raises(MessageTooLarge):
        broker.publish_many(name, [b"small", b"x" * limit])
    # Ten of these do not fit one call.
    broker.publish_many(name, [b"y" * (limit // 3)] * 10)
    with broker.subscribe(name) as consumer:
        taken = take(consumer, 11)
        assert sorted(len(d.body) for d in taken) == [limit // 3] * 10 + [limit - overhead]
        consumer.ack(taken)
    assert broker.depth(name) == 0


def test_a_bad_entry_fails_alone(connect: Connect, name: str) -> None:
    """Past the adapter's own checks: the broker refuses a control character, the neighbours are stored."""
    broker = connect(Queue(name))
    sqs = broker.native
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    entries = [{"MessageBody": body} for body in ("one", "\x01", "three")]
    outcomes = call_batch(lambda es: sqs.send_message_batch(QueueUrl=url, Entries=es), entries, "send", publish_failure)
    if outcomes[1] is None:
        pytest.skip("this endpoint takes control characters (AWS does not)")
    assert [type(outcome) for outcome in outcomes] == [type(None), PublishFailed, type(None)]
    with broker.subscribe(name) as consumer:
        taken = take(consumer, 2)
        assert {d.body for d in taken} == {b"one", b"three"}
        consumer.ack(taken)


def test_a_message_of_another_program_arrives_as_is(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    sqs = broker.native
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    attributes: dict[str, Any] = {
        "n": {"DataType": "Number", "StringValue": "12"},
        "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    sent = sqs.send_message(QueueUrl=url, MessageBody='{"Type": "Notification"}', MessageAttributes=attributes)
    with broker.subscribe(name) as consumer:
        (delivery,) = take(consumer, 1)
        assert delivery.body == b'{"Type": "Notification"}'
        assert delivery.headers == {"n": "12", "b": "\x00\\xff"}
        assert (delivery.id, delivery.key, delivery.content_type) == (sent["MessageId"], None, None)
        assert abs(delivery.timestamp - time.time()) < 60
        delivery.ack()


def test_delay_is_in_whole_seconds_rounded_up(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    with broker.subscribe(name) as consumer:
        start = time.monotonic()
        broker.publish(name, b"later", delay=1.2)
        broker.publish(name, b"now")
        first, second = take(consumer, 2)
        assert (first.body, second.body) == (b"now", b"later")
        assert time.monotonic() - start >= 1.2
        consumer.ack([first, second])
    with pytest.raises(UnsupportedCapability):
        broker.publish(name, b"too late", delay=901)


def test_delay_on_an_ordered_queue_is_refused(connect: Connect, name: str) -> None:
    broker = connect(Queue(name, ordered=True))
    with pytest.raises(UnsupportedCapability, match="FIFO"):
        broker.publish(name, b"x", key="k", delay=1)


def test_a_missing_destination(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    driver = broker._driver
    sender = driver.sender(ProducerOptions(timeout=5))
    for destination in (Queue("no" + name), Queue("no" + name, ordered=True)):
        outcomes: dict[int, object] = {}
        messages = [Message(b"x", id=str(n), key="k") for n in range(2)]
        sender.send(messages, Outgoing(destination), outcomes.__setitem__)
        deadline = time.monotonic() + 5
        while len(outcomes) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [type(outcomes[n]) for n in range(2)] == [DestinationNotFound] * 2
    sender.close(1)


def test_a_queue_that_is_deleted_and_made_again(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"1")
    broker._driver.delete(broker.topology)
    with pytest.raises(DestinationNotFound):
        broker.publish(name, b"2")
    broker._driver.declare(broker.topology, True)
    broker.publish(name, b"3")
    with broker.subscribe(name) as consumer:
        take(consumer, 1)[0].ack()


def test_a_type_that_sns_cannot_carry_is_refused(connect: Connect, name: str) -> None:
    broker = connect()
    if not broker.capabilities.topics:
        with pytest.raises(UnsupportedCapability, match="SQS only"):
            broker.declare(Topic(name, "g"))
        return
    broker.declare(Topic(name, "g"))
    with pytest.raises(InvalidMessage):
        broker.publish(name, b"x", type="a\x01b")
    with pytest.raises(MessageTooLarge, match="SNS"):
        broker.publish(name, b"x" * 262_144)
    with pytest.raises(UnsupportedCapability):
        broker.publish(name, b"x", delay=1)
    with pytest.raises(UnsupportedCapability):
        broker.publish(name, b"x", mandatory=True)
