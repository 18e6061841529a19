"""pika as well as it can be used: SelectConnection, pipelined confirms, coalesced acks, quorum queues."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import pika

from benchmarks.contender import PAYLOAD, Arrival, Contender, Meter, Run, Settings, payloads, unique_name

PERSISTENT = pika.BasicProperties(delivery_mode=2)


class RawRabbitMQ(Contender):
    name = "pika"
    carries = "nothing; delivery mode 2"

    def open(self) -> None:
        self.parameters = parameters(self.settings)
        self._connection = pika.BlockingConnection(self.parameters)
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()

    def close(self) -> None:
        self._connection.close()

    def create(self) -> str:
        return declare(self._channel)

    def delete(self, name: str) -> None:
        self._channel.queue_delete(name)

    def publish_many(self, name: str, count: int) -> Run:
        return PipelinedPublish(self.parameters, name, payloads(count), self.settings.window).run()

    def publish_each(self, name: str, count: int) -> Run:
        start = time.perf_counter()
        for _ in range(count):
            self._publish(name)
        return Run(count, time.perf_counter() - start)

    def consume(self, name: str, count: int) -> Run:
        return CoalescedConsume(self.parameters, name, count, self.settings.prefetch).run()

    def latencies(self, name: str, count: int) -> list[float]:
        arrival = Arrival()
        connection = pika.BlockingConnection(self.parameters)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=self.settings.prefetch)

        def received(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
            arrival.mark()
            channel.basic_ack(method.delivery_tag)

        channel.basic_consume(name, received)
        thread = Thread(target=channel.start_consuming)
        thread.start()
        try:
            return arrival.ping(lambda: self._publish(name), count)
        finally:
            connection.add_callback_threadsafe(channel.stop_consuming)
            thread.join()
            connection.close()

    def _publish(self, name: str) -> None:
        self._channel.basic_publish("", name, PAYLOAD, PERSISTENT, mandatory=True)


class PipelinedPublish:
    """Keeps `window` publishes unconfirmed on one channel. Runs in the calling thread."""

    def __init__(self, parameters: pika.ConnectionParameters, queue: str, bodies: list[bytes], window: int) -> None:
        self._queue = queue
        self._bodies = bodies
        self._window = window
        self._sent = 0
        self._unconfirmed: dict[int, None] = {}
        self._seconds = 0.0
        self._loop = _Loop(parameters, self._opened)

    def run(self) -> Run:
        self._loop.run()
        return Run(len(self._bodies), self._seconds)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery(self._confirmed, callback=self._start)

    def _start(self, _frame: Any) -> None:
        self._started = time.perf_counter()
        self._fill()

    def _fill(self) -> None:
        publish, queue, bodies, unconfirmed = self._channel.basic_publish, self._queue, self._bodies, self._unconfirmed
        sent = self._sent
        for index in range(sent, min(len(bodies), sent + self._window - len(unconfirmed))):
            publish("", queue, bodies[index], PERSISTENT, mandatory=True)
            unconfirmed[index + 1] = None
            self._sent = index + 1

    def _confirmed(self, frame: Any) -> None:
        method, unconfirmed = frame.method, self._unconfirmed
        if not isinstance(method, pika.spec.Basic.Ack):
            raise RuntimeError(f"RabbitMQ refused a publish: {method}")
        if method.multiple:
            while unconfirmed and (tag := next(iter(unconfirmed))) <= method.delivery_tag:
                del unconfirmed[tag]
        else:
            del unconfirmed[method.delivery_tag]
        if self._sent < len(self._bodies):
            self._fill()
        elif not unconfirmed:
            self._seconds = time.perf_counter() - self._started
            self._loop.stop()


class CoalescedConsume:
    """Acks with multiple=True, four times a prefetch. Runs in the calling thread."""

    def __init__(self, parameters: pika.ConnectionParameters, queue: str, count: int, prefetch: int) -> None:
        self._queue = queue
        self._prefetch = prefetch
        self._every = max(prefetch // 4, 1)
        self._meter = Meter(count)
        self._run: Run | None = None
        self._loop = _Loop(parameters, self._opened)

    def run(self) -> Run:
        self._loop.run()
        assert self._run is not None
        return self._run

    def _opened(self, channel: Any) -> None:
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(self._queue, self._received)

    def _received(self, channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        meter = self._meter
        meter.add(1)
        len(body)
        if meter.done:
            channel.basic_ack(method.delivery_tag, multiple=True)
            # The broker answers in order: its answer to this says that the acks were carried out.
            channel.basic_qos(prefetch_count=self._prefetch, callback=self._settled)
        elif not meter.seen % self._every:
            channel.basic_ack(method.delivery_tag, multiple=True)

    def _settled(self, _frame: Any) -> None:
        self._run = self._meter.run()
        self._loop.stop()


class _Loop:
    """A SelectConnection with one channel, run until `stop`."""

    def __init__(self, parameters: pika.ConnectionParameters, opened: Callable[[Any], None]) -> None:
        self._closed: BaseException | None = None
        self._stopping = False
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=opened),
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
        )

    def run(self) -> None:
        self._connection.ioloop.start()
        if not self._stopping:
            raise self._closed or RuntimeError("the connection was lost")

    def stop(self) -> None:
        self._stopping = True
        self._connection.close()

    def _ended(self, _connection: Any, error: BaseException) -> None:
        self._closed = error
        self._connection.ioloop.stop()


def parameters(settings: Settings) -> pika.URLParameters:
    """pika's parameters for the benchmark's URL."""
    return pika.URLParameters(settings.url.replace("rabbitmq://", "amqp://", 1).rstrip("/") + "/%2F")


def declare(channel: Any) -> str:
    """A quorum queue of our own, like that of anybroker."""
    name = unique_name("queue")
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
    return name
