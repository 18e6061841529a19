"""FastStream on Kafka (its confluent broker)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faststream import AckPolicy
from faststream.confluent import KafkaBroker

from benchmarks.contender import Role, Settings
from benchmarks.faststream_runs import BODY, FastStreamRuns
from benchmarks.raw_kafka import RawKafka, bootstrap


class FastStreamKafka(FastStreamRuns):
    name = "FastStream"
    share = 0.03

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._admin = RawKafka(settings)

    def open(self) -> None:
        self._admin.open()

    def close(self) -> None:
        self._admin.close()

    def create(self) -> str:
        return self._admin.create()

    def delete(self, name: str) -> None:
        self._admin.delete(name)

    def broker(self) -> KafkaBroker:
        return KafkaBroker(
            bootstrap(self.settings),
            acks="all",
            enable_idempotence=True,
            linger_ms=int(self.settings.linger),
            logger=None,
            apply_types=False,
        )

    def subscriber(self, broker: KafkaBroker, name: str) -> Callable[[Any], Any]:
        return broker.subscriber(name, **self._options(name))

    def _options(self, name: str) -> dict[str, Any]:
        return {
            "group_id": f"{name}--bench",
            "auto_offset_reset": "earliest",
            "ack_policy": AckPolicy.NACK_ON_ERROR,
        }

    async def publish(self, broker: KafkaBroker, name: str) -> None:
        await broker.publish(BODY, topic=name)


class FastStreamKafkaBatches(FastStreamKafka):
    """Handlers that take batches of 500, acked one by one batch."""

    name = "FastStream, batches"
    role = Role.PEER
    share = 1.0

    def _options(self, name: str) -> dict[str, Any]:
        return super()._options(name) | {"batch": True, "max_records": 500}

    def handler(self, received: Callable[[int], None]) -> Any:
        async def handle(bodies: Any) -> None:
            for body in bodies:
                len(body)
            received(len(bodies))

        return handle

    def can(self, method: str) -> bool:
        return method == "consume"
