"""Which contenders a broker has, where it is by default, and with which settings all of them work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from benchmarks.contender import Contender, Settings

_OURS = ("benchmarks.ours:Ours", "benchmarks.ours:OneByOne")


@dataclass(frozen=True)
class Setup:
    """One broker, or one way to use it.

    messages, flat_messages: how many a bulk scenario and the memory check take when not told. note: for the reader.
    """

    name: str
    title: str
    url: str
    contenders: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    scenarios: tuple[str, ...] = ("publish", "publish-each", "consume", "latency")
    messages: int = 20_000
    flat_messages: int = 100_000
    note: str = ""


MEMORY = Setup(
    "memory",
    "memory",
    "memory://",
    (*_OURS, "benchmarks.raw_memory:RawMemory"),
    flat_messages=1_000_000,
    note="SimpleQueue is a floor, not a rival: it keeps nothing until an ack.",
)
RABBITMQ = Setup(
    "rabbitmq",
    "RabbitMQ, quorum queue",
    "rabbitmq://guest:guest@localhost:5672/",
    (
        *_OURS,
        "benchmarks.raw_rabbitmq:RawRabbitMQ",
        "benchmarks.faststream_rabbitmq:FastStreamRabbitMQ",
        "benchmarks.kombu_rabbitmq:KombuRabbitMQ",
    ),
    settings={"prefetch": 200, "window": 1000},
    note="Kombu waits for each confirmation, so its two publish rows are the same work.",
)
KAFKA = Setup(
    "kafka",
    "Kafka, topic and consumer group",
    "kafka://localhost:9092",
    (
        *_OURS,
        "benchmarks.raw_kafka:RawKafka",
        "benchmarks.faststream_kafka:FastStreamKafka",
        "benchmarks.faststream_kafka:FastStreamKafkaBatches",
    ),
    settings={"kind": "topic", "prefetch": 10_000, "window": 100_000, "linger": 2},
    messages=100_000,
    flat_messages=300_000,
)
KAFKA_QUEUE = Setup(
    "kafka-queue",
    "Kafka, queue through a share group",
    KAFKA.url,
    (*_OURS, "benchmarks.raw_kafka_share:RawKafkaShare"),
    settings={"kind": "queue", "prefetch": 500, "window": 100_000, "linger": 2},
    scenarios=("consume", "latency"),
    messages=50_000,
)
SQS = Setup(
    "sqs",
    "SQS, standard queue",
    "sqs://localhost:4566?region=us-east-1&access_key=test&secret_key=test",
    (*_OURS, "benchmarks.raw_sqs:RawSQS", "benchmarks.kombu_sqs:KombuSQS"),
    settings={"prefetch": 200, "window": 1000, "senders": 4, "receivers": 2},
    messages=5_000,
    flat_messages=20_000,
    note="An emulator shares the machine and is most of the time; Kombu sends and deletes one message a call.",
)

BROKERS: Mapping[str, tuple[Setup, ...]] = {
    "memory": (MEMORY,),
    "rabbitmq": (RABBITMQ,),
    "kafka": (KAFKA, KAFKA_QUEUE),
    "sqs": (SQS,),
}

HOW_TO_START = (
    "start one with `messaging brokers up` or `docker compose up --wait` (compose.yaml), or name yours with --url"
)


def load(path: str, settings: Settings) -> Contender:
    """The contender at `module:class`. Raises ImportError when its package is not installed."""
    module, _, name = path.partition(":")
    contender: Contender = getattr(import_module(module), name)(settings)
    return contender


def label(path: str) -> str:
    """What to call a contender whose package is missing: from its module's name."""
    return path.partition(":")[0].rpartition(".")[2].replace("_", " ")
