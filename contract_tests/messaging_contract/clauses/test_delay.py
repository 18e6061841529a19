"""Delayed publishing: never early, and a long delay holds up nobody."""

from __future__ import annotations

import time

import pytest

from messaging import InvalidMessage
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, TOPIC, clause
from messaging_contract.ledger import Ledger


@clause(
    "delay.queue",
    "A message published to a queue with a delay is not seen before it.",
    anchors=[92],
    on=QUEUE,
    needs="delayed_queue",
)
def test_queue(bench: Bench) -> None:
    _never_early(bench)


@clause(
    "delay.topic",
    "A message published to a topic with a delay is seen by no group before it, and by each after.",
    anchors=[92],
    on=TOPIC,
    needs="delayed_topic",
)
def test_topic(bench: Bench) -> None:
    _never_early(bench)


def _never_early(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    delay = bench.seconds(1.19)
    for publish in ("publish", "publish_many", "publish_nowait"):
        messages = [ledger.message(key="k", headers={"h": "v"}) for _ in range(3 if publish == "publish_many" else 1)]
        message = messages[0]
        started = time.monotonic()
        if publish == "publish_many":
            bench.broker.publish_many(source.destination, messages, delay=delay)
        elif publish == "publish_nowait":
            bench.broker.publish_nowait(source.destination, message, delay=delay).result(30)
        else:
            bench.broker.publish(source.destination, message, delay=delay)
        for each in messages:
            ledger.confirm(each.id)
        for _ in messages:
            delivery = bench.one(consumer, ledger)
            waited = time.monotonic() - started
            assert waited >= delay * 0.99, f"{publish} with a delay of {delay:g} s arrived after {waited:.2f} s"
            assert (delivery.attempt, dict(delivery.headers), delivery.key) == (1, dict(message.headers), "k")
            delivery.ack()
    bench.quiet(consumer, ledger)
    ledger.check()


@clause(
    "delay.overtakes",
    "A short delay overtakes a longer one that was published earlier, and no delay overtakes both.",
    anchors=[94],
    on=QUEUE,
    needs="delayed_queue",
)
def test_overtakes(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    order = _publish(bench, ledger, source.destination, [bench.seconds(4.0), bench.seconds(2.0), 0.0])
    received = [delivery.id for delivery in bench.take(consumer, ledger, ack=True)]
    assert received == order[::-1]
    ledger.check()


@clause(
    "delay.waits-in-the-broker",
    "A delayed message is delivered though its publisher and all consumers went away meanwhile.",
    anchors=[92],
    failures=[29],
    on=QUEUE,
    needs="delayed_queue",
)
def test_waits_in_the_broker(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    with bench.connect(topology=source.destination) as publisher:
        _publish(bench, ledger, source.destination, [bench.seconds(1.0)], publisher)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "delay.invalid",
    "A delay that is negative or not a number of seconds is refused, and nothing is sent.",
    anchors=[95],
    on=QUEUE,
    needs="delayed_queue",
)
def test_invalid(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    for delay in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidMessage):
            bench.broker.publish(source.destination, ledger.message(), delay=delay)
    bench.quiet(consumer, ledger)


def _publish(bench: Bench, ledger: Ledger, destination: object, delays: list[float], by: object = None) -> list[str]:
    return [ledger.publish_one(by or bench.broker, destination, ledger.message(), delay=delay) for delay in delays]


@clause(
    "delay.own-queue",
    "Delayed messages of two queues wait by themselves: each comes to its own, also when the other is deleted.",
    anchors=[92],
    on=QUEUE,
    needs="delayed_queue",
)
def test_own_queue(bench: Bench) -> None:
    mine, other = bench.queue(), bench.queue()
    ledger, others = bench.ledger("mine"), bench.ledger("other")
    consumer = bench.consume(mine)
    for number in range(3):
        _publish(bench, ledger, mine, [bench.seconds(2.0)])
        _publish(bench, others, other, [bench.seconds(2.0)])
        if number == 1:
            bench.broker.delete(other)
            bench.broker.declare(other)
    bench.take(consumer, ledger, ack=True)
    bench.quiet(consumer, others)
    ledger.check()
