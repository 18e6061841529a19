"""confluent-kafka as well as it can be used: idempotent, delivery reports, batches of 500, stored offsets."""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.contender import PAYLOAD, Arrival, Contender, Meter, Run, Settings, payloads, unique_name

BATCH = 500
PARTITIONS = 4


class RawKafka(Contender):
    name = "confluent-kafka"
    carries = "nothing"

    def open(self) -> None:
        self.bootstrap = bootstrap(self.settings)
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})
        self._producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": self.settings.linger,
                "batch.size": 900_000,
                "queue.buffering.max.messages": 1_000_000,
            }
        )

    def close(self) -> None:
        self._producer.flush(10)

    def create(self) -> str:
        return make_topic(self.admin)

    def delete(self, name: str) -> None:
        delete_topic(self.admin, name)

    def publish_many(self, name: str, count: int) -> Run:
        bodies = payloads(count)
        reports = _Reports()
        producer, produce, window = self._producer, self._producer.produce, self.settings.window
        start = time.perf_counter()
        for number, body in enumerate(bodies, 1):
            produce(name, body, on_delivery=reports)
            if not number % 1000:
                producer.poll(0)
                while number - reports.count > window:
                    producer.poll(0.01)
        producer.flush()
        seconds = time.perf_counter() - start
        reports.check(count)
        return Run(count, seconds)

    def publish_each(self, name: str, count: int) -> Run:
        start = time.perf_counter()
        for _ in range(count):
            self._publish(name)
        return Run(count, time.perf_counter() - start)

    def consume(self, name: str, count: int) -> Run:
        meter = Meter(count)
        consumer = self.consumer(name)
        try:
            while not meter.done:
                messages = consumer.consume(min(BATCH, meter.missing), 10.0)
                if not messages:
                    raise TimeoutError(f"{meter.missing} of {count} messages did not arrive")
                meter.add(len(messages))
                last: dict[int, int] = {}
                for message in messages:
                    if message.error():
                        raise KafkaException(message.error())
                    len(message.value() or b"")
                    last[message.partition() or 0] = message.offset() or 0
                consumer.store_offsets(offsets=[TopicPartition(name, p, offset + 1) for p, offset in last.items()])
            consumer.commit(asynchronous=False)
            return meter.run()
        finally:
            consumer.close()

    def latencies(self, name: str, count: int) -> list[float]:
        arrival, stop = Arrival(), Event()
        consumer = self.consumer(name)

        def read() -> None:
            while not stop.is_set():
                message = consumer.poll(0.5)
                if message is not None and not message.error():
                    arrival.mark()
                    consumer.store_offsets(message)

        thread = Thread(target=read)
        thread.start()
        try:
            return arrival.ping(lambda: self._publish(name), count)
        finally:
            stop.set()
            thread.join()
            consumer.close()

    def consumer(self, topic: str) -> Consumer:
        """A consumer that commits what is stored twice a second, as anybroker's does."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{topic}--bench",
                "auto.offset.reset": "earliest",
                "enable.auto.offset.store": False,
                "auto.commit.interval.ms": 500,
                "topic.metadata.refresh.interval.ms": 1000,
            }
        )
        consumer.subscribe([topic])
        return consumer

    def _publish(self, name: str) -> None:
        reports = _Reports()
        self._producer.produce(name, PAYLOAD, on_delivery=reports)
        while not reports.count:
            self._producer.poll(1.0)
        reports.check(1)


class _Reports:
    """Counts delivery reports; called by the client inside poll and flush."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Any = None

    def __call__(self, error: Any, _message: Message) -> None:
        self.count += 1
        if error is not None:
            self.error = error

    def check(self, wanted: int) -> None:
        if self.error is not None:
            raise KafkaException(self.error)
        if self.count != wanted:
            raise RuntimeError(f"{self.count} of {wanted} messages were reported")


def bootstrap(settings: Settings) -> str:
    """The hosts of the benchmark's URL."""
    return settings.url.partition("://")[2].partition("?")[0].rstrip("/")


def make_topic(admin: AdminClient, partitions: int = PARTITIONS) -> str:
    """A topic of our own; as many partitions as anybroker makes when it is not told."""
    name = unique_name("topic")
    for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        future.result(30)
    return name


def delete_topic(admin: AdminClient, name: str, *groups: str) -> None:
    """The topic and the groups that read it."""
    for group in groups or (f"{name}--bench",):
        try:
            for future in admin.delete_consumer_groups([group]).values():
                future.result(30)
        except KafkaException:
            pass  # nobody consumed
    for future in admin.delete_topics([name]).values():
        future.result(30)
