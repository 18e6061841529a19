"""What the brokers hold, asked with the client library alone; and what the tests of this adapter share."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import (
    Consumer,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

import messaging
from messaging import Broker, Delivery
from messaging.capabilities import Support


class Cluster:
    """Every question goes to the brokers. Each raises after 15 seconds."""

    def __init__(self, url: str) -> None:
        self.bootstrap = urlsplit(url).netloc
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """What the group has committed, an offset a partition."""
        # Not through the AdminClient, which crashes when the group's coordinator has just moved (librdkafka#5040).
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False})
        try:
            found = consumer.committed([TopicPartition(topic, p) for p in range(self.partitions(topic))], 15)
        finally:
            consumer.close()
        return {p.partition: p.offset for p in found if p.offset >= 0}

    def group(self, group: str) -> Any:
        """Type, state and members of a group."""
        return self.admin.describe_consumer_groups([group])[group].result(15)

    def topics(self) -> set[str]:
        return set(self.admin.list_topics(timeout=15).topics)

    def partitions(self, topic: str) -> int:
        described = self.admin.describe_topics(TopicCollection([topic]))[topic].result(15)
        return len(described.partitions)

    def config(self, name: str, kind: ResourceType = ResourceType.TOPIC) -> dict[str, str]:
        (future,) = self.admin.describe_configs([ConfigResource(kind, name)]).values()
        return {key: entry.value for key, entry in future.result(15).items()}

    def configure(self, name: str, kind: ResourceType = ResourceType.TOPIC, **settings: str) -> None:
        """Changes settings of a topic or a group; underscores stand for dots."""
        entries = [
            ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for key, value in settings.items()
        ]
        resource = ConfigResource(kind, name, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(15)

    def records(self, topic: str) -> list[Any]:
        """Every record of a topic, in the order of each partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "facts", "enable.auto.commit": False})
        try:
            count = self.partitions(topic)
            marks = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=15) for p in range(count)]
            consumer.assign([TopicPartition(topic, p, low) for p, (low, _) in enumerate(marks)])
            found: list[Any] = []
            ends = {p: high for p, (low, high) in enumerate(marks) if high > low}
            deadline = time.monotonic() + 15
            while ends:
                assert time.monotonic() < deadline, f"{topic} could not be read"
                record = consumer.poll(0.2)
                if record is None or record.error():
                    continue
                found.append(record)
                if record.offset() + 1 >= ends.get(record.partition(), 0):
                    ends.pop(record.partition(), None)
            return found
        finally:
            consumer.close()

    def produce(self, topic: str, *values: bytes | None, at_once: bool = False, **fields: Any) -> None:
        """Puts records into a topic as another program would. `at_once`: in one batch a partition."""
        # Nothing is sent before the flush, which waits for no linger.
        linger = {"linger.ms": 10_000} if at_once else {}
        producer = Producer({"bootstrap.servers": self.bootstrap, **linger})
        for value in values:
            producer.produce(topic, value, **fields)
        assert producer.flush(15) == 0


def take(consumer: messaging.Consumer, count: int, within: float = 20.0) -> list[Delivery]:
    """Exactly `count` deliveries."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + within
    while len(taken) < count and time.monotonic() < deadline:
        taken += consumer.receive(count - len(taken), 0.5)
    assert len(taken) == count, f"{len(taken)} of {count} deliveries within {within:g} s"
    return taken


def one_partition(topic: str, *groups: messaging.Subscription | str, ordered: bool = False) -> messaging.Topic:
    """A topic whose messages all follow one another."""
    return messaging.Topic(topic, *(groups or ("g",)), ordered=ordered, native={"kafka": {"partitions": 1}})


def uses_share_groups(broker: Broker) -> bool:
    return broker.capabilities.queues.support is Support.NATIVE
