"""FastStream on RabbitMQ (aio-pika)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faststream import AckPolicy
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.contender import Settings
from benchmarks.faststream_runs import BODY, FastStreamRuns
from benchmarks.raw_rabbitmq import RawRabbitMQ


class FastStreamRabbitMQ(FastStreamRuns):
    name = "FastStream"
    share = 0.2

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._admin = RawRabbitMQ(settings)

    def open(self) -> None:
        self._admin.open()

    def close(self) -> None:
        self._admin.close()

    def create(self) -> str:
        return self._admin.create()

    def delete(self, name: str) -> None:
        self._admin.delete(name)

    def broker(self) -> RabbitBroker:
        channel = Channel(prefetch_count=self.settings.prefetch, publisher_confirms=True)
        url = self.settings.url.replace("rabbitmq://", "amqp://", 1)
        return RabbitBroker(url, default_channel=channel, logger=None, apply_types=False)

    def subscriber(self, broker: RabbitBroker, name: str) -> Callable[[Any], Any]:
        queue = RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True, declare=False)
        return broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)

    async def publish(self, broker: RabbitBroker, name: str) -> None:
        await broker.publish(BODY, queue=name, persist=True)
