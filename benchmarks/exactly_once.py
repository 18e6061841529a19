"""What exactly-once costs: consume, process, produce in transactions, against the same at least once."""

from __future__ import annotations

import time
from collections.abc import Callable

import messaging
from benchmarks.contender import PAYLOAD, Settings, unique_name
from benchmarks.ours import GROUP
from benchmarks.stats import paired_ratios, spread

BATCHES = (1, 10, 100)
_AT_MOST = 1000
"""Batches a round, so that those of one message do not take minutes."""

_Step = Callable[[int], int]
"""Handles up to so many messages; returns how many."""


def exactly_once(settings: Settings, messages: int, rounds: int) -> list[dict[str, object]]:
    """For each batch size: messages a second of both, by round, taking turns.

    At least once publishes a batch, waits until it is stored, and acknowledges; positions are committed twice a second.
    """
    with messaging.connect(settings.url, **settings.extra) as broker:
        results: list[dict[str, object]] = []
        for batch in BATCHES:
            count = max(min(messages, _AT_MOST * batch), batch)
            once, least = [], []
            for _ in range(rounds):
                least.append(_run(broker, settings, count, batch, "at-least-once"))
                once.append(_run(broker, settings, count, batch, "exactly-once"))
            results.append(
                {
                    "batch": batch,
                    "unit": "msg/s",
                    "messages": count,
                    "at_least_once": spread(least),
                    "exactly_once": spread(once),
                    "ratio": spread(paired_ratios(once, least)),
                }
            )
        return results


def _run(broker: messaging.Broker, settings: Settings, count: int, batch: int, delivery: str) -> float:
    source, target = messaging.Topic(unique_name("topic"), GROUP), messaging.Topic(unique_name("topic"))
    broker.declare([source, target])
    try:
        broker.publish_many(source.name, [PAYLOAD] * count)
        options = {"delivery": delivery, "prefetch": settings.prefetch}
        with broker.subscribe(source.name, GROUP, **options) as consumer:  # type: ignore[arg-type]
            step = _transacting(consumer, target.name) if delivery == "exactly-once" else None
            step = step or _acknowledging(broker, consumer, target.name)
            warm = step(1)  # what the first costs alone: connections, the group's beginning
            start, done = time.perf_counter(), warm
            while done < count:
                done += step(min(batch, count - done))
            consumer.flush()
            return (count - warm) / (time.perf_counter() - start)
    finally:
        broker.delete(source)
        broker.delete(target)


def _transacting(consumer: messaging.Consumer, target: str) -> _Step:
    def step(most: int) -> int:
        with consumer.transaction() as transaction:
            deliveries = transaction.receive(most, 10.0)
            for delivery in deliveries:
                transaction.publish(target, delivery.body)
        return len(deliveries)

    return step


def _acknowledging(broker: messaging.Broker, consumer: messaging.Consumer, target: str) -> _Step:
    def step(most: int) -> int:
        deliveries = consumer.receive(most, 10.0)
        broker.publish_many(target, [delivery.body for delivery in deliveries])
        consumer.ack(deliveries)
        return len(deliveries)

    return step
