"""confluent-kafka's ShareConsumer in explicit mode: Kafka's own queue (KIP-932)."""

from __future__ import annotations

import warnings
from threading import Event, Thread

from confluent_kafka import KafkaException, ShareConsumer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from benchmarks.contender import Arrival, Meter, Run
from benchmarks.raw_kafka import RawKafka, delete_topic


class RawKafkaShare(RawKafka):
    name = "confluent-kafka ShareConsumer"

    def create(self) -> str:
        name = super().create()
        start = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.GROUP, _group(name), incremental_configs=[start])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(30)
        return name

    def delete(self, name: str) -> None:
        delete_topic(self.admin, name, _group(name))

    def consume(self, name: str, count: int) -> Run:
        meter = Meter(count)
        consumer = self._open(name)
        try:
            while not meter.done:
                messages = consumer.poll(10.0)
                if not len(messages):
                    raise TimeoutError(f"{meter.missing} of {count} messages did not arrive")
                meter.add(len(messages))
                for message in messages:
                    if message.error():
                        raise KafkaException(message.error())
                    len(message.value() or b"")
                    consumer.acknowledge(message)
            consumer.commit_sync(10.0)
            return meter.run()
        finally:
            consumer.close()

    def latencies(self, name: str, count: int) -> list[float]:
        arrival, stop = Arrival(), Event()

        def read() -> None:
            # Not thread-safe: made, used and closed here.
            consumer = self._open(name)
            while not stop.is_set():
                for message in consumer.poll(0.5):
                    arrival.mark()
                    consumer.acknowledge(message)
            consumer.close()

        thread = Thread(target=read)
        thread.start()
        try:
            return arrival.ping(lambda: self._publish(name), count)
        finally:
            stop.set()
            thread.join()

    def _open(self, name: str) -> ShareConsumer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            consumer = ShareConsumer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "group.id": _group(name),
                    "log_level": 3,
                    "share.acknowledgement.mode": "explicit",
                    "max.poll.records": min(self.settings.prefetch, 500),
                }
            )
        consumer.subscribe([name])
        return consumer


def _group(name: str) -> str:
    return f"{name}--share"
