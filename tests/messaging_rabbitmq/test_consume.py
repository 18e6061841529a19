from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing

import pika
import pytest

import messaging
from messaging import dead_letter
from messaging.dead_letter_queue import DeadLetterQueue
from messaging.errors import Closed, DestinationNotFound, MessagingError, SettleFailed
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Queue, Source, Subscription, Topic, Topology
from messaging_rabbitmq import RabbitMQDriver, RabbitMQOptions

from .helpers import eventually, message, opened, publish, take

Declare = Callable[[Topology], Topology]


def fill(driver: RabbitMQDriver, queue: Queue, count: int) -> list[str]:
    messages = [message(b"%d" % index) for index in range(count)]
    assert not any(publish(driver.sender(ProducerOptions()), queue, *messages))
    return [each.id for each in messages]


def test_acks_in_any_order_settle_exactly_what_they_name(driver: RabbitMQDriver, queue: Queue) -> None:
    ids = fill(driver, queue, 300)
    receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=300))
    deliveries = take(receiver, 300)
    assert [d.id for d in deliveries] == ids
    kept = deliveries[7::31]
    settled = [d for d in deliveries if d not in kept]
    random.Random(7).shuffle(settled)
    for delivery in settled:
        delivery.ack()
        delivery.ack()
    receiver.flush(5)
    assert receiver.lag() == len(kept)
    receiver.close()
    again = take(driver.receiver(Source(queue), ConsumerOptions()), len(kept))
    assert sorted(d.id for d in again) == sorted(d.id for d in kept)
    assert {d.attempt for d in again} == {2}


def test_prefetch_bounds_what_is_unsettled(driver: RabbitMQDriver, queue: Queue) -> None:
    fill(driver, queue, 30)
    receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=5))
    taken = take(receiver, 5)
    assert receiver.receive(10, 0.3) == []
    taken[0].ack()
    assert len(take(receiver, 1)) == 1
    assert receiver.receive(10, 0.2) == []


def test_attempts_count_up_through_every_way_back(driver: RabbitMQDriver, queue: Queue) -> None:
    [id_] = fill(driver, queue, 1)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    attempts = []
    for delay in (0.0, 0.05, 0.0, 0.0, 0.12, 0.0):
        [delivery] = take(receiver, 1)
        assert delivery.id == id_
        assert delivery.headers == {}
        attempts.append(delivery.attempt)
        asked = time.monotonic()
        delivery.nack(delay)
        if delay:
            [delivery] = take(receiver, 1)
            assert time.monotonic() - asked >= delay
            attempts.append(delivery.attempt)
            delivery.nack()
    assert attempts == list(range(1, len(attempts) + 1))


def test_more_returns_than_the_brokers_default_limit(driver: RabbitMQDriver, queue: Queue) -> None:
    fill(driver, queue, 1)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    for attempt in range(1, 31):
        [delivery] = take(receiver, 1)
        assert delivery.attempt == attempt
        delivery.nack()
    assert driver.depth(Source(Source(queue).dead_letter or queue)) == 0


def test_a_classic_queue_counts_attempts_too(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    queue = Queue(name, native={"rabbitmq": {"type": "classic"}})
    declared(Topology(queue))
    fill(driver, queue, 1)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    for attempt in range(1, 5):
        [delivery] = take(receiver, 1)
        assert delivery.attempt == attempt
        delivery.nack()


def test_nack_with_delay_comes_back_to_its_subscription_only(
    driver: RabbitMQDriver, declared: Declare, name: str
) -> None:
    topic = Topic(name, Subscription("a"), Subscription("b"))
    declared(Topology(topic))
    assert publish(driver.sender(ProducerOptions()), topic, message(type="t.u")) == [None]
    one, two = (driver.receiver(Source(topic, each), ConsumerOptions()) for each in topic.subscriptions)
    take(one, 1)[0].nack(0.1)
    take(two, 1)[0].ack()
    [again] = take(one, 1)
    assert (again.attempt, again.type) == (2, "t.u")
    again.ack()
    assert two.receive(1, 0.3) == []


def test_reject_moves_to_the_dead_letter_queue(driver: RabbitMQDriver, queue: Queue) -> None:
    sent = message(b"bad", key="k", type="t", headers={"h": "v"})
    assert publish(driver.sender(ProducerOptions()), queue, sent) == [None]
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    take(receiver, 1)[0].reject("no good")
    receiver.flush(5)
    assert receiver.lag() == 0
    parked = Source(queue).dead_letter
    assert parked is not None
    [dead] = take(driver.receiver(Source(parked), ConsumerOptions()), 1)
    assert (dead.id, dead.key, dead.type, dead.body, dead.attempt) == (sent.id, "k", "t", b"bad", 1)
    assert dead.headers["h"] == "v"
    assert dead.headers[dead_letter.REASON] == "no good"
    assert dead.headers[dead_letter.SOURCE] == queue.name


def test_reject_without_a_dead_letter_queue_discards(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    queue = Queue(name, dead_letter=False)
    declared(Topology(queue))
    fill(driver, queue, 1)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    take(receiver, 1)[0].reject()
    receiver.flush(5)
    assert receiver.lag() == 0


def test_a_vanished_wait_queue_is_declared_again(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    fill(driver, queue, 1)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    take(receiver, 1)[0].nack(0.05)
    [delivery] = take(receiver, 1)
    remove(options, f"{queue.name}--retry--50")
    delivery.nack(0.05)
    assert take(receiver, 1)[0].attempt == 3


def test_a_vanished_dead_letter_queue_keeps_the_original(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    fill(driver, queue, 1)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    remove(options, f"{queue.name}--dlq")
    [delivery] = take(receiver, 1)
    delivery.reject()
    with pytest.raises(MessagingError, match="delivered again"):
        take(receiver, 1)
    assert take(receiver, 1)[0].id == delivery.id


def test_a_deleted_queue_of_ours_comes_back(driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions) -> None:
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    remove(options, queue.name)
    sender = driver.sender(ProducerOptions())
    eventually(lambda: publish(sender, queue, message()) == [None])
    assert len(take(receiver, 1)) == 1


def test_a_deleted_queue_of_others_is_missed(driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions) -> None:
    with opened(options) as other:
        other.declare(Topology(queue), False)
        receiver = other.receiver(Source(queue), ConsumerOptions())
        remove(options, queue.name)
        with pytest.raises(DestinationNotFound):
            for _ in range(50):
                receiver.receive(1, 0.1)


def test_pause_stops_and_resume_goes_on(driver: RabbitMQDriver, queue: Queue) -> None:
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    receiver.pause()
    receiver.pause()
    receiver.flush(5)
    fill(driver, queue, 3)
    assert receiver.receive(1, 0.3) == []
    assert driver.depth(Source(queue)) == 3
    receiver.resume()
    receiver.resume()
    assert len(take(receiver, 3)) == 3


def test_a_pause_gives_no_more_than_the_prefetch(driver: RabbitMQDriver, queue: Queue) -> None:
    receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=4))
    fill(driver, queue, 20)
    held = take(receiver, 4)
    for _ in range(3):
        receiver.pause()
        receiver.resume()
    receiver.flush(5)
    assert receiver.receive(10, 0.3) == []
    held.pop().ack()
    held += take(receiver, 1)
    assert receiver.receive(10, 0.3) == []
    for delivery in held:
        delivery.ack()
    held = take(receiver, 4)
    assert receiver.receive(10, 0.3) == []
    for delivery in held:
        delivery.ack()
    for _ in range(11):
        take(receiver, 1)[0].ack()


def test_closing_in_the_middle_of_a_message_leaves_the_others_alone(driver: RabbitMQDriver, queue: Queue) -> None:
    sender = driver.sender(ProducerOptions())
    assert not any(publish(sender, queue, *(message(b"x" * 400_000) for _ in range(20))))
    other = driver.receiver(Source(queue), ConsumerOptions(prefetch=1))
    take(other, 1)
    link = driver._consuming
    assert link is not None
    connection = link.connection
    for _ in range(20):
        driver.receiver(Source(queue), ConsumerOptions(prefetch=19)).close()
    assert link.connection is connection


def test_a_channel_that_the_broker_closed_is_opened_again(driver: RabbitMQDriver, queue: Queue) -> None:
    fill(driver, queue, 3)
    receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=2))
    old = take(receiver, 2)
    receiver._link.submit(lambda: receiver._channel.basic_ack(999))  # type: ignore[union-attr]
    again = take(receiver, 2)
    assert {d.id for d in again} == {d.id for d in old}
    assert receiver.receive(5, 0.3) == []
    for delivery in (*old, *again):
        delivery.ack()
    take(receiver, 1)[0].ack()
    receiver.flush(5)
    assert receiver.lag() == 0


def test_a_consumer_closed_while_its_channel_opens_leaves_none_behind(driver: RabbitMQDriver, queue: Queue) -> None:
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    fill(driver, queue, 5)
    take(receiver, 5)
    link = receiver._link
    ended = threading.Event()

    def lose_and_leave() -> None:
        receiver._lose_channel()
        receiver._open()
        receiver._end(ended)

    link.submit(lose_and_leave)
    assert ended.wait(5)
    assert len(take(driver.receiver(Source(queue), ConsumerOptions()), 5)) == 5


def test_what_cannot_be_copied_is_dead_lettered_by_the_broker(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    properties = pika.BasicProperties(headers={"h": "x" * 130_960})
    with pika.BlockingConnection(options.parameters("127.0.0.1", options.hosts[0][1] or 5672)) as connection:
        connection.channel().basic_publish("", queue.name, b"body", properties)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    take(receiver, 1)[0].nack(0.05)
    with pytest.raises(SettleFailed, match="do not fit"):
        receiver.flush(5)
    take(receiver, 1)[0].reject()
    receiver.flush(5)
    assert receiver.lag() == 0
    parked = Source(queue).dead_letter
    assert parked is not None
    with closing(driver.receiver(Source(parked), ConsumerOptions())) as dead:
        assert take(dead, 1)[0].body == b"body"
    result = DeadLetterQueue(driver, Source(queue)).redrive()
    assert (result.moved, result.failed) == (1, [])
    assert take(receiver, 1)[0].body == b"body"
    eventually(lambda: driver.depth(Source(parked)) == 0)


def test_close_gives_the_rest_back_at_once(driver: RabbitMQDriver, queue: Queue) -> None:
    fill(driver, queue, 20)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    first, second = take(receiver, 20)[:2]
    first.ack()
    receiver.close()
    receiver.close()
    with pytest.raises(Closed):
        second.ack()
    with pytest.raises(Closed):
        receiver.receive(1, 0)
    assert len(take(driver.receiver(Source(queue), ConsumerOptions()), 19, within=2)) == 19


def test_a_missing_source(driver: RabbitMQDriver, name: str) -> None:
    with pytest.raises(DestinationNotFound):
        driver.receiver(Source(Queue(name)), ConsumerOptions())
    with pytest.raises(DestinationNotFound):
        driver.depth(Source(Queue(name)))


def test_an_ordered_queue_has_one_consumer_and_keeps_its_order(broker: messaging.Broker, name: str) -> None:
    queue = Queue(name, ordered=True)
    broker.declare(queue)
    try:
        for index in range(60):
            broker.publish(queue, b"%d" % index, key=f"k{index % 3}")
        with broker.subscribe(queue) as one, broker.subscribe(queue) as two:
            held = one.receive(3, 5)
            assert two.receive(10, 0.3) == []
            assert [d.body for d in held] == [b"0", b"1", b"2"]
            held[0].ack()
            one.close()
            seen: dict[str | None, list[int]] = {}
            while sum(map(len, seen.values())) < 59:
                deliveries = two.receive(100, 5)
                assert deliveries
                for delivery in deliveries:
                    seen.setdefault(delivery.key, []).append(int(delivery.body))
                    delivery.ack()
        assert seen == {"k0": list(range(3, 60, 3)), "k1": list(range(1, 60, 3)), "k2": list(range(2, 60, 3))}
    finally:
        broker.delete(queue)


def test_foreign_messages_arrive_as_they_are(driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions) -> None:
    headers = {
        "int": 1,
        "negative": -5,
        "big": 2**40,
        "bool": True,
        "none": None,
        "list": [1, "a", {"deep": b"\xff"}],
        "table": {"a": 1},
        "text": "ü",
        "x-messaging-key": 7,
        "x-messaging-attempt": "-7",
        "x-messaging-timestamp": "9" * 400,
        "x-messaging-expires-at": "never",
    }
    with pika.BlockingConnection(options.parameters("127.0.0.1", options.hosts[0][1] or 5672)) as connection:
        channel = connection.channel()
        channel.basic_publish("", queue.name, b"\xff", pika.BasicProperties(headers=headers))
        channel.basic_publish("", queue.name, b"")
    full, bare = take(driver.receiver(Source(queue), ConsumerOptions()), 2)
    assert full.headers["int"] == "1"
    assert full.headers["bool"] == "true"
    assert full.headers["none"] == ""
    assert full.headers["table"] == '{"a": 1}'
    assert full.headers["text"] == "ü"
    assert (full.key, full.attempt, full.expires_at) == ("7", 1, None)
    assert not [name for name in full.headers if name.startswith("x-")]
    assert (bare.body, bare.content_type, bare.key, bare.type, dict(bare.headers)) == (b"", None, None, "", {})
    assert bare.id
    full.nack(0.05)
    bare.reject()


def remove(options: RabbitMQOptions, name: str) -> None:
    with pika.BlockingConnection(options.parameters("127.0.0.1", options.hosts[0][1] or 5672)) as connection:
        connection.channel().queue_delete(name)
