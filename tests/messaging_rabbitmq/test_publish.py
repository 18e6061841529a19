from __future__ import annotations

from collections.abc import Callable

import pytest

from messaging.errors import Closed, DestinationNotFound, InvalidMessage, PublishFailed, Unroutable
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Queue, Source, Subscription, Topic, Topology
from messaging_rabbitmq import RabbitMQDriver

from .helpers import message, publish, take

Declare = Callable[[Topology], Topology]


def test_everything_a_message_carries_arrives(driver: RabbitMQDriver, queue: Queue) -> None:
    sent = message(
        b"\x00\xff body",
        key="customer 42",
        type="order.placed",
        headers={"plain": "text", "empty": "", "ünicode": "日本", "CC": "not a route", "x-death": "mine"},
        content_type="application/json",
        correlation_id="c",
        reply_to="r",
        expires_at=4102444800.123,
    )
    sent.timestamp = 1700000000.123
    assert publish(driver.sender(ProducerOptions()), queue, sent) == [None]
    [delivery] = take(driver.receiver(Source(queue), ConsumerOptions()), 1)
    assert delivery.message == sent
    assert delivery.attempt == 1
    assert delivery.expires_at == sent.expires_at
    assert delivery.native.delivery_mode == 2


@pytest.mark.parametrize("size", [0, 1, 131064, 131065, 400_000, 3_000_000])
def test_bodies_of_any_size_arrive(driver: RabbitMQDriver, queue: Queue, size: int) -> None:
    sent = message(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    assert publish(driver.sender(ProducerOptions()), queue, sent, message(b"next")) == [None, None]
    first, second = take(driver.receiver(Source(queue), ConsumerOptions()), 2)
    assert first.body == sent.body
    assert second.body == b"next"


def test_missing_destinations_fail_only_their_messages(driver: RabbitMQDriver, queue: Queue, name: str) -> None:
    sender = driver.sender(ProducerOptions())
    outcomes: list[object] = []
    from messaging.driver import Outgoing

    for _ in range(20):
        for destination in (queue, Queue(name + "-none"), Topic(name + "-none"), queue):
            sender.send([message()], Outgoing(destination), lambda _index, error: outcomes.append(error))
    sender.close(10)
    assert len(outcomes) == 80
    assert sum(error is None for error in outcomes) == 40
    assert sum(isinstance(error, DestinationNotFound) for error in outcomes) == 40
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    got: set[str] = set()
    # The channel was closed under the others: what had been stored and not yet confirmed was sent twice.
    while len(got) < 40:
        got.add(take(receiver, 1)[0].id)


def test_a_topic_without_takers(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    topic = Topic(name, Subscription("g", "order.*"))
    declared(Topology(topic))
    sender = driver.sender(ProducerOptions())
    assert publish(sender, topic, message(type="other"), message(type="order.x")) == [None, None]
    lost, kept = publish(sender, topic, message(type="other"), message(type="order.x"), mandatory=True)
    assert isinstance(lost, Unroutable)
    assert kept is None
    assert len(take(driver.receiver(Source(topic, topic.subscriptions[0]), ConsumerOptions()), 2)) == 2


def test_duplicate_ids_get_their_own_outcome(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    topic = Topic(name, Subscription("g", "order.*"))
    declared(Topology(topic))
    messages = [message(type=type_) for type_ in ("order.x", "other", "other", "order.x")]
    for each in messages:
        each.id = "same"
    outcomes = publish(driver.sender(ProducerOptions()), topic, *messages, mandatory=True)
    assert [error is None for error in outcomes] == [True, False, False, True]


def test_a_full_queue_refuses(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    queue = Queue(name, native={"rabbitmq": {"max_length": 3}})
    declared(Topology(queue))
    sender = driver.sender(ProducerOptions())
    outcomes = [publish(sender, queue, message())[0] for _ in range(20)]
    assert outcomes[0] is None
    assert isinstance(outcomes[-1], PublishFailed)
    assert driver.depth(Source(queue)) == sum(error is None for error in outcomes)


def test_headers_too_large_for_a_frame_fail_alone(driver: RabbitMQDriver, queue: Queue) -> None:
    huge = message(headers={"h": "x" * 200_000})
    good, bad, after = publish(driver.sender(ProducerOptions()), queue, message(), huge, message())
    assert (good, after) == (None, None)
    assert isinstance(bad, InvalidMessage)


def test_delays_are_kept_and_return_to_the_destination_only(
    driver: RabbitMQDriver, declared: Declare, name: str
) -> None:
    topic = Topic(name, Subscription("all"), Subscription("some", "order.*"))
    declared(Topology(topic))
    sender = driver.sender(ProducerOptions())
    late, never = message(b"late", type="order.x"), message(b"never", type="nobody")
    assert publish(sender, topic, late, never, delay=2.0) == [None, None]
    assert publish(sender, topic, message(b"soon", type="order.x"), delay=0.1) == [None]
    for group, bodies in (("all", [b"soon", b"late", b"never"]), ("some", [b"soon", b"late"])):
        receiver = driver.receiver(Source(topic, topic.subscription(group)), ConsumerOptions())
        assert [d.body for d in take(receiver, len(bodies))] == bodies
        assert receiver.receive(1, 0.2) == []


def test_messages_nobody_takes_do_not_stop_a_topics_delays(
    driver: RabbitMQDriver, declared: Declare, name: str
) -> None:
    topic = Topic(name, Subscription("some", "order.*"))
    declared(Topology(topic))
    sender = driver.sender(ProducerOptions())
    assert not any(publish(sender, topic, *(message(type="nobody") for _ in range(100)), delay=0.1))
    assert publish(sender, topic, message(b"mine", type="order.x"), delay=0.1) == [None]
    receiver = driver.receiver(Source(topic, topic.subscriptions[0]), ConsumerOptions())
    assert take(receiver, 1)[0].body == b"mine"


def test_a_delayed_publish_to_a_missing_destination(driver: RabbitMQDriver, name: str) -> None:
    sender = driver.sender(ProducerOptions())
    for destination in (Queue(name), Topic(name)):
        [error] = publish(sender, destination, message(), delay=0.1)
        assert isinstance(error, DestinationNotFound)


def test_send_after_close(driver: RabbitMQDriver, queue: Queue) -> None:
    sender = driver.sender(ProducerOptions())
    sender.close(1)
    sender.close(1)
    with pytest.raises(Closed):
        publish(sender, queue, message())
    assert publish(driver.sender(ProducerOptions()), queue, message()) == [None]


def test_closing_before_the_channel_is_open_leaves_the_connection_alone(driver: RabbitMQDriver, queue: Queue) -> None:
    connection = driver.native
    for _ in range(20):
        driver.sender(ProducerOptions()).close(1)
    assert publish(driver.sender(ProducerOptions()), queue, message()) == [None]
    assert driver.native is connection
