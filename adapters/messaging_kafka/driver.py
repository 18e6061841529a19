"""The Kafka driver: one AdminClient, and a client of its own for each sender and receiver."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from confluent_kafka.admin import ResourceType

from messaging.capabilities import Capabilities
from messaging.concerns import Concern
from messaging.driver import Driver, Receiver, Sender, TransactionalReceiver
from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    Closed,
    ConfigurationError,
    DestinationNotFound,
    MessagingError,
    UnsupportedCapability,
)
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.plan import Finding, Part
from messaging.topology import Destination, Source, Topic, Topology

from .admin import RECORD_OVERHEAD, Admin
from .capabilities import capabilities
from .commands import commands
from .concerns import concerns
from .group_receiver import GroupReceiver
from .groups import group_of, lag_of, order_mark
from .inspection import inspect
from .options import PORT, KafkaOptions
from .parts import TOPIC, check_delays, parts_of
from .records import SURELY_FITS, check_size
from .retry_receiver import RetryReceiver
from .retry_topics import levels_of, retry_topics, undeclared
from .sender import KafkaSender
from .server_version import metadata_version, release
from .share_groups import ShareGroups, retry_name, share_group
from .share_receiver import ShareReceiver
from .topology import Declarations
from .transactional_receiver import KafkaTransactionalReceiver

log = logging.getLogger(__name__)

_REPLACED_WITHIN = 10_000
"""Milliseconds after which a crashed member of a group is to be replaced, at most."""

_NEWEST = "4.2"

R = TypeVar("R", bound=Receiver)


class KafkaDriver(Driver):
    """Kafka 4.0 and later. Every method from any thread; `_lock` guards what is open."""

    name: ClassVar[str] = "kafka"
    Options: ClassVar[type[Any]] = KafkaOptions
    surely_fits: ClassVar[int] = SURELY_FITS
    depth_counts_held: ClassVar[bool] = True
    export_formats: ClassVar[Sequence[str]] = ("kafka",)

    def __init__(self, options: KafkaOptions) -> None:
        super().__init__(options)
        self.capabilities = capabilities(share_groups=False)
        self._where = options.bootstrap
        self._admin = Admin(options)
        self._shares = ShareGroups(self._admin, options)
        self._declarations = Declarations(self._admin, self._shares)
        self._group_config: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._open: list[Any] = []
        self._copies: KafkaSender | None = None
        self._closed = False

    @classmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        return [("Kafka >= 4.2", capabilities(share_groups=True)), ("Kafka < 4.2", capabilities(share_groups=False))]

    def open(self) -> None:
        self._admin.connect(self._where, self.options.connect_timeout)
        self._shares.probe(self._metadata_version)
        limit, protocol = None, self.options.group_protocol
        try:
            broker = self._admin.config(ResourceType.BROKER, self._admin.a_broker())
        except MessagingError:
            broker = {}  # not everybody may read a broker's settings: then their defaults are assumed
        if (text := broker.get("message.max.bytes")) and text.isdigit():
            self._admin.default_limit = limit = int(text) - RECORD_OVERHEAD
        if (text := broker.get("group.share.delivery.count.limit")) and text.isdigit():
            self._delivery_limit = int(text)
        if (text := broker.get("group.share.max.record.lock.duration.ms")) and text.isdigit():
            self._shares.longest_lock = int(text) / 1000
        if protocol == "auto":
            least = broker.get("group.consumer.min.session.timeout.ms") or ""
            protocol = "consumer" if least.isdigit() and int(least) <= _REPLACED_WITHIN else "classic"
            self._shorten_sessions = protocol == "consumer"
        self._group_config = {"group_protocol": protocol}
        if protocol == "classic":
            self._group_config |= {
                "partition_assignment_strategy": "cooperative-sticky",
                "session_timeout_ms": 8000,
                "heartbeat_interval_ms": 1000,
            }
        self.capabilities = capabilities(self._shares.available, limit)

    @property
    def version(self) -> str:
        return release(self._metadata_version())

    def _metadata_version(self) -> int | None:
        encrypted = self.options.client()["security.protocol"].endswith("SSL")
        timeout = self.options.connect_timeout / len(self.options.hosts)
        told = (metadata_version(host, port or PORT, encrypted, timeout) for host, port in self.options.hosts)
        return next((level for level in told if level is not None), None)

    _shorten_sessions = False
    _delivery_limit = 5

    def declare(self, topology: Topology, create: bool) -> None:
        self._check_open()
        self._declarations.apply(topology, create)

    def assume(self, version: str | None) -> str:
        found = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3})(?:\.[\w.-]+)?)?", _NEWEST if version is None else version)
        numbers = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
        if numbers < (4, 0):
            raise ConfigurationError(f"{version!r} is not a supported version of Kafka: 4.0 or later, as in 4.1")
        self._shares.assume(numbers >= (4, 2))
        self.capabilities = capabilities(self._shares.available)
        return f"Kafka {numbers[0]}.{numbers[1]}"

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        check_delays(topology, delays)
        limit = self._admin.default_limit + RECORD_OVERHEAD
        return parts_of(topology, self._shares.uses, self._shares.settings(), limit)

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        self._check_open()
        return inspect(self._admin, parts)

    def leftovers(self, topology: Topology, delays: Sequence[float] | None) -> list[Part]:
        self._check_open()
        found = []
        for source, topic in undeclared(self._admin, topology.sources):
            why = f"retries of {source} no longer go there; "
            if source.ordered or self._shares.uses(source):
                why += "its consumers do not read it: declare it as it was, have it emptied"
            else:
                why += "consumers that begin now still read it: let them empty it"
            settings = {"messages": lag_of(self._admin, topic, topic)}
            found.append(Part(TOPIC, topic, settings, f"{why}, then delete it and its group of the same name"))
        return found

    def concerns(self, topology: Topology, delays: Sequence[float] = ()) -> list[Concern]:
        self._check_open()
        return concerns(self._admin, self.plan(topology), delays)

    def export(self, parts: Sequence[Part], format: str) -> str:
        if format not in self.export_formats:
            raise ConfigurationError(f"kafka: no export as {format!r}; there is {', '.join(self.export_formats)}")
        return commands(parts, self.options.bootstrap)

    def check(self, message: Message, destination: Destination) -> None:
        check_size(message, destination.name, self._admin.limit(destination.name))

    def sender(self, options: ProducerOptions) -> Sender:
        self._check_open()
        sender = KafkaSender(self.options, self._admin, options.timeout, self._forget)
        with self._lock:
            self._open.append(sender)
        return sender

    def receiver(self, source: Source, options: ConsumerOptions) -> Receiver:
        self._check_open()
        if options.lease is not None:
            self.capabilities.require("lease", self.name, "leave out lease")
        if self._shares.uses(source):
            self._admin.require(source.destination.name)
            return self._keep(self._share_receiver(source, options))
        group = self._group_to_read(source)
        topics = retry_topics(self._admin, source)
        if self._shorten_sessions:
            for topic in topics.values():
                self._shorten(topic)
        copies = self._copies_to(source)
        arguments = (source, options, self._consumer_config(group), group, self._admin, copies, self._forget)
        if not topics:
            return self._keep(GroupReceiver(*arguments))
        for topic in topics.values():
            copies.prepare(topic)
        configs = {topic: self._consumer_config(topic) for topic in topics.values()}
        return self._keep(RetryReceiver(levels_of(source), topics, configs, *arguments))

    def transactional_receiver(self, source: Source, options: ConsumerOptions) -> TransactionalReceiver:
        self._check_open()
        if not isinstance(source.destination, Topic):
            raise UnsupportedCapability(
                f"{source}: exactly-once needs a topic and a group, since queues are not read in transactions; or use "
                "delivery='at-least-once' and an inbox (messaging_sql.Inbox), which has each effect happen once"
            )
        if retry_topics(self._admin, source):
            raise UnsupportedCapability(
                f"{source}: exactly-once and retry topics exclude each other: declare the subscription without them"
            )
        group = self._group_to_read(source)
        config = self._consumer_config(group)
        return self._keep(
            KafkaTransactionalReceiver(source, options, config, group, self._admin, self.options, self._forget)
        )

    def _group_to_read(self, source: Source) -> str:
        """The group of a source that is there. Raises DestinationNotFound."""
        topic, group = source.destination.name, group_of(source)
        self._admin.require(topic)
        if isinstance(source.destination, Topic) and not self._admin.committed(group, topic):
            raise DestinationNotFound(f"{source} does not exist (group {group!r} has no position): declare it first")
        if self._shorten_sessions:
            self._shorten(group)
        return group

    def _shorten(self, group: str) -> None:
        try:
            self._admin.configure(ResourceType.GROUP, group, {"consumer.session.timeout.ms": str(_REPLACED_WITHIN)})
        except AuthenticationFailed as error:
            log.warning(
                "a consumer of group %r that is lost is replaced when the cluster's own session timeout ends, "
                "45 s by default, not after %g s: %s",
                group,
                _REPLACED_WITHIN / 1000,
                error,
            )

    def _share_receiver(self, source: Source, options: ConsumerOptions) -> Receiver:
        retry_topic = retry_name(source.name)
        copies = self._copies_to(source)
        copies.prepare(retry_topic)
        config = self.options.client(group_id=share_group(source.name), share_acknowledgement_mode="explicit")
        return ShareReceiver(
            source,
            options,
            config,
            self._consumer_config(retry_topic),
            retry_topic,
            self._delivery_limit,
            self._shares.lock(source),
            self._admin,
            copies,
            lambda: self._shares.lag(source),
            self._forget,
        )

    def _keep(self, receiver: R) -> R:
        with self._lock:
            self._open.append(receiver)
        return receiver

    def _consumer_config(self, group: str) -> dict[str, Any]:
        config: dict[str, Any] = self.options.client(
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            fetch_wait_max_ms=100,
            # How long a partition is not fetched once enough of it waits here. The default is a second, in which a fast
            # consumer is done with all of it and idles.
            fetch_queue_backoff_ms=10,
            enable_partition_eof=True,  # tells where the next message will be: a transaction's end is none
            **self._group_config,
        )
        return config

    def _copies_to(self, source: Source) -> KafkaSender:
        """The sender for copies (dead letters), shared by the receivers, which must not wait for it at first use."""
        with self._lock:
            if self._copies is None:
                self._copies = KafkaSender(self.options, self._admin, ProducerOptions().timeout, lambda _sender: None)
            copies = self._copies
        if source.dead_letter is not None:
            with suppress(DestinationNotFound):  # as elsewhere, that is said of the message that is to go there
                copies.prepare(source.dead_letter.name)
        return copies

    def depth(self, source: Source) -> int:
        self._check_open()
        self._admin.require(source.destination.name)
        group = group_of(source)
        for share in self._share_receivers(source):
            return share.lag()
        if self._shares.uses(source):
            return self._shares.lag(source)
        for receiver in self._receivers(group):
            return receiver.lag()
        waiting = retry_topics(self._admin, source).values()
        return lag_of(self._admin, group, source.destination.name) + sum(lag_of(self._admin, t, t) for t in waiting)

    def purge(self, source: Source) -> None:
        self._check_open()
        topic, group = source.destination.name, group_of(source)
        if isinstance(source.destination, Topic):
            self._skip(source, group, topic)
        else:
            self._admin.delete_records(topic, self._admin.ends(topic))
            retry = retry_name(source.name)
            if self._admin.partitions([retry])[retry] is not None:
                self._admin.delete_records(retry, self._admin.ends(retry))
        for retry in retry_topics(self._admin, source).values():
            self._skip(source, retry, retry)

    def _skip(self, source: Source, group: str, topic: str) -> None:
        """Moves the group's positions in `topic` to its ends: by who holds them here, else from outside."""
        ends = self._admin.ends(topic)
        held: set[int] = set()
        for receiver in self._receivers(group_of(source)):
            held |= receiver.skip_to(topic, ends)
        if held != set(ends) and not self._admin.commit(group, topic, ends, order_mark(source)):
            raise BrokerUnavailable(
                f"purge of {source}: group {group!r} has members elsewhere, and only they can move its position; "
                "close them first"
            )

    def _receivers(self, group: str) -> list[GroupReceiver]:
        with self._lock:
            return [r for r in self._open if isinstance(r, GroupReceiver) and r.group == group]

    def _share_receivers(self, source: Source) -> list[ShareReceiver]:
        with self._lock:
            return [r for r in self._open if isinstance(r, ShareReceiver) and r.source.name == source.name]

    def delete(self, topology: Topology) -> None:
        self._check_open()
        self._declarations.remove(topology)

    def ping(self) -> None:
        self._check_open()
        self._admin.connect(self._where, self.options.connect_timeout)

    @property
    def native(self) -> Any:
        return self._admin.client

    def close(self) -> None:
        with self._lock:
            self._closed = True
            left, self._open = self._open, []
            copies, self._copies = self._copies, None
        for receiver in [c for c in left if not isinstance(c, KafkaSender)]:
            receiver.close()
        for sender in [c for c in left if isinstance(c, KafkaSender)] + ([copies] if copies else []):
            sender.close(5.0)

    def _forget(self, closed: Any) -> None:
        with self._lock:
            if closed in self._open:
                self._open.remove(closed)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the Kafka broker is closed")
