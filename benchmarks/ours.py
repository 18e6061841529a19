"""anybroker, on any broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

import messaging
from benchmarks.contender import PAYLOAD, Arrival, Contender, Meter, Role, Run, payloads, unique_name

GROUP = "bench"
BATCH = 500


class Ours(Contender):
    """`publish_many` and `publish`; `receive(500)`, then one `ack` for the batch."""

    name = "anybroker"
    role = Role.OURS
    carries = "id, timestamp, content type"

    def open(self) -> None:
        self.broker = messaging.connect(self.settings.url, **self.settings.extra)
        self.producer = self.broker.producer(max_in_flight=self.settings.window, timeout=120.0)

    def close(self) -> None:
        self.broker.close()

    def create(self) -> str:
        name = unique_name(self.settings.kind)
        self.broker.declare(messaging.Queue(name) if self._queue else messaging.Topic(name, GROUP))
        return name

    def delete(self, name: str) -> None:
        self.broker.delete(messaging.Queue(name) if self._queue else messaging.Topic(name, GROUP))

    def publish_many(self, name: str, count: int) -> Run:
        bodies = payloads(count)
        start = time.perf_counter()
        self.producer.publish_many(name, bodies)
        return Run(count, time.perf_counter() - start)

    def publish_each(self, name: str, count: int) -> Run:
        start = time.perf_counter()
        for _ in range(count):
            self.producer.publish(name, PAYLOAD)
        return Run(count, time.perf_counter() - start)

    def consume(self, name: str, count: int) -> Run:
        meter = Meter(count)
        with self.subscribe(name) as consumer:
            while not meter.done:
                deliveries = consumer.receive(min(BATCH, meter.missing), 10.0)
                if not deliveries:
                    raise TimeoutError(f"{meter.missing} of {count} messages did not arrive")
                meter.add(len(deliveries))
                for delivery in deliveries:
                    len(delivery.body)
                consumer.ack(deliveries)
            consumer.flush()
            return meter.run()

    def latencies(self, name: str, count: int) -> list[float]:
        arrival = Arrival()
        with self.subscribe(name) as consumer:
            thread = Thread(target=_mark_each, args=(consumer, arrival))
            thread.start()
            try:
                return arrival.ping(lambda: self.producer.publish(name, PAYLOAD), count)
            finally:
                consumer.close()
                thread.join()

    def subscribe(self, name: str, **options: Any) -> messaging.Consumer:
        """The consumer of a destination that `create` made."""
        return self.broker.subscribe(name, None if self._queue else GROUP, prefetch=self.settings.prefetch, **options)

    @property
    def _queue(self) -> bool:
        return self.settings.kind == "queue"


class OneByOne(Ours):
    """A future for each publish; a for-loop that acks each delivery: what a program without batches does."""

    name = "anybroker, one by one"
    role = Role.VARIANT

    def publish_many(self, name: str, count: int) -> Run:
        bodies = payloads(count)
        start = time.perf_counter()
        for body in bodies:
            self.producer.publish_nowait(name, body)
        self.producer.flush()
        return Run(count, time.perf_counter() - start)

    def consume(self, name: str, count: int) -> Run:
        meter = Meter(count)
        with self.subscribe(name) as consumer:
            for delivery in _within(consumer, 10.0):
                meter.add(1)
                len(delivery.body)
                delivery.ack()
                if meter.done:
                    break
            consumer.flush()
            return meter.run()

    def can(self, method: str) -> bool:
        return method in ("publish_many", "consume")


def _within(consumer: messaging.Consumer, seconds: float) -> Iterator[messaging.Delivery]:
    yield from consumer.iterate(seconds)
    raise TimeoutError("messages did not arrive")


def _mark_each(consumer: messaging.Consumer, arrival: Arrival) -> None:
    for delivery in consumer:
        arrival.mark()
        delivery.ack()
