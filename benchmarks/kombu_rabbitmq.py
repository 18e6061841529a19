"""Kombu on RabbitMQ (py-amqp), with publisher confirms."""

from __future__ import annotations

import kombu

from benchmarks.contender import Settings
from benchmarks.kombu_runs import KombuRuns
from benchmarks.raw_rabbitmq import RawRabbitMQ


class KombuRabbitMQ(KombuRuns):
    carries = "content type and encoding"
    share = 0.2

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._admin = RawRabbitMQ(settings)
        self.ack_every = max(settings.prefetch // 4, 1)

    def open(self) -> None:
        self._admin.open()

    def close(self) -> None:
        self._admin.close()

    def create(self) -> str:
        return self._admin.create()

    def delete(self, name: str) -> None:
        self._admin.delete(name)

    def connection(self) -> kombu.Connection:
        url = self.settings.url.replace("rabbitmq://", "amqp://", 1).rstrip("/") + "//"
        return kombu.Connection(url, transport_options={"confirm_publish": True})

    def queue(self, name: str) -> kombu.Queue:
        return kombu.Queue(name, queue_arguments={"x-queue-type": "quorum"})
