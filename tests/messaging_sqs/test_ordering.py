"""FIFO: messages of a key stay in order, whoever fails."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import pytest

from messaging import Message, Queue
from messaging.broker import Broker
from messaging.consumer import Consumer
from messaging.errors import BrokerUnavailable, InvalidMessage, LeaseLost
from messaging_sqs.batch import Outcomes
from messaging_sqs.settlements import Settlement, Settlements

from .test_messages import take

Connect = Callable[..., Broker]

pytestmark = pytest.mark.only("sqs:ministack", "sqs:moto-process")


def handle_all(consumer: Consumer, count: int, seen: dict[str, list[int]], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    handled = 0
    while handled < count and time.monotonic() < deadline:
        for delivery in consumer.receive(10, 0.5):
            seen[delivery.key or ""].append(delivery.value)
            delivery.ack()
            handled += 1
    assert handled == count


def publish(broker: Broker, name: str, keys: list[str], each: int) -> None:
    messages = [Message.of(n, key=key, id=f"{name}-{key}-{n}") for n in range(each) for key in keys]
    broker.publish_many(name, messages)


def test_keys_keep_their_order(connect: Connect, name: str) -> None:
    broker = connect(Queue(name, ordered=True))
    keys = ["a", "b", "c d", "ключ", "x" * 200]
    publish(broker, name, keys, 30)
    seen: dict[str, list[int]] = defaultdict(list)
    with broker.subscribe(name) as consumer:
        handle_all(consumer, 150, seen)
        consumer.flush()
        assert consumer.lag() == 0
    assert seen == {key: list(range(30)) for key in keys}
    with pytest.raises(InvalidMessage):
        broker.publish(name, b"no key")


def test_a_nack_holds_back_the_rest_of_its_key(connect: Connect, name: str) -> None:
    broker = connect(Queue(name, ordered=True))
    publish(broker, name, ["a", "b"], 5)
    seen: dict[str, list[int]] = defaultdict(list)
    failed = False
    with broker.subscribe(name, lease=3) as consumer:
        deadline = time.monotonic() + 20
        while sum(map(len, seen.values())) < 10 and time.monotonic() < deadline:
            for delivery in consumer.receive(10, 0.5):
                if delivery.key == "a" and delivery.value == 2 and not failed:
                    failed = True
                    delivery.nack(1.0)
                    continue
                seen[delivery.key or ""].append(delivery.value)
                delivery.ack()
    assert seen == {"a": list(range(5)), "b": list(range(5))}


def test_a_closed_consumer_hands_its_keys_over_in_order(connect: Connect, name: str) -> None:
    broker = connect(Queue(name, ordered=True))
    publish(broker, name, ["a", "b"], 15)
    seen: dict[str, list[int]] = defaultdict(list)
    first = broker.subscribe(name)
    handle_all(first, 4, seen)
    first.receive(10, 0.5)
    first.close()
    with broker.subscribe(name) as second:
        handle_all(second, 26, seen)
    assert seen == {"a": list(range(15)), "b": list(range(15))}


def test_a_lapsed_lease_lets_nothing_overtake(connect: Connect, name: str) -> None:
    """Its message comes again, to the same consumer or another; until then the later ones of its key are held back."""
    broker = connect(Queue(name, ordered=True))
    publish(broker, name, ["a"], 6)
    handled: list[int] = []
    with broker.subscribe(name, lease=2, heartbeat=False) as first:
        (delivery,) = take(first, 1)
        assert delivery.value == 0
        with broker.subscribe(name, lease=30) as second:
            deadline = time.monotonic() + 60
            while len(handled) < 6 and time.monotonic() < deadline:
                for consumer in (first, second):
                    try:
                        found = consumer.receive(1, 0.2)
                    except LeaseLost:
                        continue
                    for each in found:
                        if not handled and delivery is not None:
                            delivery.ack()  # too late: somebody has it again
                            delivery = None
                        handled.append(each.value)
                        each.ack()
                        try:
                            consumer.flush()
                        except LeaseLost:
                            handled.pop()  # it comes again
    assert handled == list(range(6))


def test_two_consumers_never_share_a_key(connect: Connect, name: str) -> None:
    broker = connect(Queue(name, ordered=True))
    publish(broker, name, ["a", "b", "c"], 12)
    held: dict[str, int] = {}
    seen: dict[str, list[int]] = defaultdict(list)
    with broker.subscribe(name, prefetch=3) as one, broker.subscribe(name, prefetch=3) as other:
        deadline = time.monotonic() + 30
        while sum(map(len, seen.values())) < 36 and time.monotonic() < deadline:
            for number, consumer in enumerate((one, other)):
                for delivery in consumer.receive(3, 0.2):
                    key = delivery.key or ""
                    assert held.setdefault(key, number) == number
                    seen[key].append(delivery.value)
                    delivery.ack()
                consumer.flush()
                held.clear()
    assert seen == {key: list(range(12)) for key in "abc"}


def test_dead_letters_of_a_key_keep_their_order_when_the_first_is_tried_again(
    connect: Connect, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = connect(Queue(name, ordered=True))
    publish(broker, name, ["a", "b"], 6)
    failed = 0
    honest = Settlements._send

    def send(self: Settlements, batch: list[Settlement], queue: Queue, doing: str) -> Outcomes:
        nonlocal failed
        first = [each for each in batch if each.delivery is not None and each.delivery.id == f"{name}-a-0"]
        if not first or failed == 4:
            return honest(self, batch, queue, doing)
        failed += 1
        rest = [each for each in batch if each not in first]
        sent = iter(honest(self, rest, queue, doing) if rest else [])
        return [BrokerUnavailable(f"{doing}: not now") if each in first else next(sent) for each in batch]

    monkeypatch.setattr(Settlements, "_send", send)
    with broker.subscribe(name) as consumer:
        for _ in range(12):
            take(consumer, 1)[0].reject("no")
        consumer.flush()
    assert failed == 4
    seen: dict[str, list[int]] = defaultdict(list)
    with broker.dead_letters(name) as dead:
        handle_all(dead, 12, seen)
    assert seen == {"a": list(range(6)), "b": list(range(6))}


def test_the_dead_letter_queue_of_an_ordered_queue(connect: Connect, name: str) -> None:
    broker = connect(Queue(name, ordered=True))
    broker.publish(name, {"n": 1}, key="k", id="1")
    with broker.subscribe(name) as consumer:
        take(consumer, 1)[0].reject("first")
        consumer.flush()
        broker.publish(name, {"n": 1}, key="k", id="1b")
        take(consumer, 1)[0].reject("second")
        consumer.flush()
    with broker.dead_letters(name) as dead:
        for reason in ("first", "second"):
            (delivery,) = take(dead, 1)
            assert (delivery.key, delivery.headers["dead-letter-reason"]) == ("k", reason)
            delivery.ack()
