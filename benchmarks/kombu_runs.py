"""Kombu's work, whichever broker. It has no publish with many in flight: each waits for its confirmation."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from threading import Event, Thread
from typing import Any

import kombu

from benchmarks.contender import PAYLOAD, Arrival, Contender, Meter, Role, Run

_WAIT = 60.0


class KombuRuns(Contender, ABC):
    """One connection a run, used by one thread."""

    name = "Kombu"
    role = Role.PEER
    ack_every = 1

    @abstractmethod
    def connection(self) -> kombu.Connection:
        """A new connection."""

    @abstractmethod
    def queue(self, name: str) -> kombu.Queue:
        """The queue that `create` made."""

    def publish_many(self, name: str, count: int) -> Run:
        return self.publish_each(name, count)

    def publish_each(self, name: str, count: int) -> Run:
        with self.connection() as connection:
            producer = connection.Producer()
            _publish(producer, name)
            start = time.perf_counter()
            for _ in range(count - 1):
                _publish(producer, name)
            return Run(count - 1, time.perf_counter() - start)

    def consume(self, name: str, count: int) -> Run:
        meter, every = Meter(count), self.ack_every

        def received(message: Any) -> None:
            meter.add(1)
            len(message.body)
            if every == 1:
                message.ack()
            elif not meter.seen % every or meter.done:
                message.ack(multiple=True)

        with self.connection() as connection, self._consumer(connection, name, received):
            while not meter.done:
                connection.drain_events(timeout=_WAIT)
            return meter.run()

    def latencies(self, name: str, count: int) -> list[float]:
        arrival, stop = Arrival(), Event()

        def received(message: Any) -> None:
            arrival.mark()
            message.ack()

        def read() -> None:
            with self.connection() as connection, self._consumer(connection, name, received):
                while not stop.is_set():
                    try:
                        connection.drain_events(timeout=0.5)
                    except TimeoutError:
                        continue

        thread = Thread(target=read)
        thread.start()
        try:
            with self.connection() as connection:
                producer = connection.Producer()
                return arrival.ping(lambda: _publish(producer, name), count)
        finally:
            stop.set()
            thread.join()

    def _consumer(self, connection: kombu.Connection, name: str, received: Any) -> kombu.Consumer:
        return connection.Consumer(
            self.queue(name), on_message=received, prefetch_count=self.settings.prefetch, auto_declare=False
        )


def _publish(producer: kombu.Producer, name: str) -> None:
    producer.publish(
        PAYLOAD, routing_key=name, delivery_mode=2, content_type="application/octet-stream", content_encoding="binary"
    )
