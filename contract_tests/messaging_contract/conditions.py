"""Conditions that each broker has in its own way: limits of patience and size, partitions, credentials that expire."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import messaging
from messaging import Broker, Capabilities, Delivery, Queue, Support
from messaging.config import build_options, parse_url
from messaging.topology import NativeOptions, Source
from messaging_contract.clause import Kind
from messaging_contract.gate import Gate

if TYPE_CHECKING:
    from messaging_contract.harness import Link


@dataclass(frozen=True)
class Impatience:
    """Somebody gives up on a consumer that shows no sign of life while its handlers work.

    options: of `connect`, so that this happens as soon as it can be made to. seconds: a handling longer than that.
    messages: as many as it takes until nothing more is read ahead and the client has no reason of its own to speak.
    before: done to the source before anybody consumes it.
    """

    options: dict[str, Any]
    seconds: float
    messages: int = 8
    before: Callable[[Source], None] | None = None


@dataclass(frozen=True)
class Narrow:
    """A queue that the broker, not the client, soon refuses to store a message in.

    native: what it is declared with. connect: where, if not on the broker of the harness. then: done once it is there.
    large: characters of a message that does not fit, unless it is the number of messages that is limited.
    """

    native: NativeOptions = field(default_factory=dict)
    connect: Callable[[], Broker] | None = None
    then: Callable[[Queue], None] | None = None
    large: int = 5000


class Expiring(Protocol):
    """A connection whose credentials can expire."""

    def connect(self, **options: Any) -> Broker:
        """As `Harness.connect`."""

    def expire(self) -> None:
        """From now on the broker refuses the credentials."""

    def renew(self) -> None:
        """It takes them again."""

    def close(self) -> None:
        """Ends it. Idempotent."""


@dataclass(frozen=True)
class Congestion:
    """A connection on which publishes have to wait for something else than `max_in_flight`.

    reason: as the producer is to tell it. connect: as `Harness.connect`. begin, end: of what they wait for, unless
    it is that nobody consumes. messages: so many surely have to wait. close: ends it; idempotent.
    """

    reason: str
    connect: Callable[..., Broker]
    begin: Callable[[], None] = lambda: None
    end: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None
    messages: int = 5


Impatient = Callable[[Capabilities, Kind], Impatience]
"""What gives up on a silent consumer of that kind of destination."""

Place = Callable[[Delivery], tuple[int, int]]
"""The partition of a delivery and its offset there."""

Special = tuple[NativeOptions, NativeOptions]
"""A queue that was declared with one of these is not what the other asks for."""

ShortAckTimeout = Callable[[], AbstractContextManager[None]]
"""While it lasts, the broker takes back within seconds what a consumer that subscribes now does not settle."""


def impatience_for(url: str) -> Impatient | None:
    """What gives up on a silent consumer of the broker at `url`; None for a scheme not known here."""
    found = {
        "memory": Impatience({"lease": 0.3}, 1.0),
        "rabbitmq": Impatience({"heartbeat": 1}, 4.0),  # a connection is lost after two heartbeats
        "sqs": Impatience({"visibility": 2}, 5.0),
        # The classic protocol, whose client leaves the group when it is not polled. No broker takes less.
        "kafka": Impatience(
            {"group_protocol": "classic", "config": {"max.poll.interval.ms": "6000", "session.timeout.ms": "6000"}},
            8.0,
            1200,
        ),
    }.get(url.partition("://")[0])
    # No broker takes a shorter lock than that.
    locked = Impatience({}, 17.0, before=lambda source: _lock_briefly(url, source))

    def impatient(able: Capabilities, kind: Kind) -> Impatience:
        assert found is not None
        share_group = url.startswith("kafka://") and kind == "queue" and able.queues.support is Support.NATIVE
        return locked if share_group else found

    return None if found is None else impatient


def narrow_for(url: str) -> Narrow | None:
    """How the broker at `url` is brought to refuse a message; None where there is no way."""
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from messaging_memory import MemoryServer

        return Narrow(connect=lambda: messaging.connect("memory://", server=MemoryServer(capacity=3)))
    if scheme == "rabbitmq":
        return Narrow({"rabbitmq": {"max_length": 3}})
    if "max_message_bytes=" in url:  # an endpoint that takes less than the adapter thinks when it is not told
        return Narrow(connect=lambda: messaging.connect(url, max_message_bytes=1 << 20), large=300_000)
    limit = {"kafka": _limit_topic, "sqs": _limit_queue}.get(scheme)
    return None if limit is None else Narrow(then=lambda queue: limit(url, queue))


def special_for(url: str) -> Special | None:
    """Two native options of a queue on the broker at `url`; None for a scheme not known here."""
    known: dict[str, Special] = {
        "rabbitmq": ({"rabbitmq": {"type": "classic"}}, {"rabbitmq": {"type": "quorum"}}),
        "kafka": ({"kafka": {"partitions": 3}}, {"kafka": {"partitions": 4}}),
        "sqs": ({"sqs": {"visibility": 40}}, {"sqs": {"visibility": 50}}),
    }
    return known.get(url.partition("://")[0])


def place_for(url: str) -> Place | None:
    """Where a delivery of the broker at `url` is kept; None for a broker without partitions."""
    return _kafka_place if url.startswith("kafka://") else None


def _kafka_place(delivery: Delivery) -> tuple[int, int]:
    record = delivery.native
    return record.partition(), record.offset()


def full_queue(connect: Callable[..., Broker]) -> Congestion:
    """A memory broker of its own, whose queues take three messages each."""
    from messaging_memory import MemoryServer

    server = MemoryServer(capacity=3)
    return Congestion("blocked", lambda **options: connect(server=server, **options))


def small_buffer(link: Link) -> Congestion:
    """A Kafka client that has room for few messages, and a broker that does not answer."""
    config = {"queue.buffering.max.messages": "10"}
    return Congestion(
        "buffer", lambda **options: link.connect(config=config, **options), link.blackhole, link.resume, link.close, 30
    )


def throttling_for(url: str) -> Callable[[], Congestion] | None:
    """How the endpoint at `url` comes to be asked too often; None where it cannot be made to."""
    parts = urlsplit(url)
    if parts.scheme != "sqs" or not parts.hostname or not parts.port:
        return None
    host, port = parts.hostname, parts.port

    def throttling() -> Congestion:
        gate = Gate(host, port)
        through = urlunsplit(parts._replace(netloc=f"127.0.0.1:{gate.port}"))
        return Congestion(
            "throttled",
            lambda **options: messaging.connect(through, **{"config_file": os.devnull, **options}),
            gate.throttled.set,
            gate.throttled.clear,
            gate.close,
        )

    return throttling


def expiring_for(url: str) -> Callable[[], Expiring] | None:
    """How the credentials for the broker at `url` expire; None where they do not, or cannot be made to."""
    parts = urlsplit(url)
    if parts.scheme != "sqs" or not parts.hostname or not parts.port:
        return None
    host, port = parts.hostname, parts.port
    return lambda: _GatedSQS(url, host, port)


class _GatedSQS:
    """Everything through a gate that answers as AWS does once a session token has expired."""

    def __init__(self, url: str, host: str, port: int) -> None:
        self._gate = Gate(host, port)
        self._url = urlunsplit(urlsplit(url)._replace(netloc=f"127.0.0.1:{self._gate.port}"))
        self.expire = self._gate.expired.set
        self.renew = self._gate.expired.clear
        self.close = self._gate.close

    def connect(self, **options: Any) -> Broker:
        return messaging.connect(self._url, **options)


def _limit_topic(url: str, queue: Queue) -> None:
    configure_kafka(url, "TOPIC", queue.name, "max.message.bytes", "2000")


def _lock_briefly(url: str, source: Source) -> None:
    from messaging_kafka.share_groups import share_group

    configure_kafka(url, "GROUP", share_group(source.name), "share.record.lock.duration.ms", "15000")


def configure_kafka(url: str, kind: str, name: str, setting: str, value: str) -> None:
    """Sets one setting of a "TOPIC" or "GROUP" of the cluster at `url`, with the bare client."""
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    from messaging_kafka import KafkaOptions

    client = AdminClient(build_options(KafkaOptions, parse_url(url).options, "kafka").client())
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType[kind], name, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(20)


def _limit_queue(url: str, queue: Queue) -> None:
    from messaging_sqs import SQSOptions
    from messaging_sqs.clients import Clients
    from messaging_sqs.naming import queue_name

    options = build_options(SQSOptions, parse_url(url).options, "sqs")
    clients = Clients(options, options.endpoints[0])
    try:
        name = queue_name(queue.name, queue.ordered, options.queue_prefix)
        address = clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        clients.sqs.set_queue_attributes(QueueUrl=address, Attributes={"MaximumMessageSize": "2000"})
    finally:
        clients.close()
