"""The Kafka driver: one AdminClient, and a client of its own for each sender and receiver."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from confluent_kafka.admin import ResourceType

from messaging.capabilities import Capabilities
from messaging.driver import Driver, Receiver, Sender
from messaging.errors import BrokerUnavailable, Closed, DestinationNotFound, MessagingError
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Destination, Source, Topic, Topology

from .admin import RECORD_OVERHEAD, Admin
from .capabilities import capabilities
from .group_receiver import GroupReceiver
from .groups import group_of, lag_of, order_mark
from .options import KafkaOptions
from .records import SURELY_FITS, check_size
from .sender import KafkaSender
from .share_groups import ShareGroups, retry_name, share_group
from .share_receiver import ShareReceiver
from .topology import Declarations

_REPLACED_WITHIN = 10_000
"""Milliseconds after which a crashed member of a group is to be replaced, at most."""


class KafkaDriver(Driver):
    """Kafka 4.0 and later. Every method from any thread; `_lock` guards what is open."""

    name: ClassVar[str] = "kafka"
    Options: ClassVar[type[Any]] = KafkaOptions
    surely_fits: ClassVar[int] = SURELY_FITS

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
        self._shares.probe()
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

    _shorten_sessions = False
    _delivery_limit = 5

    def declare(self, topology: Topology, create: bool) -> None:
        self._check_open()
        self._declarations.apply(topology, create)

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
        self._admin.require(source.destination.name)
        if self._shares.uses(source):
            return self._keep(self._share_receiver(source, options))
        group = group_of(source)
        if isinstance(source.destination, Topic) and not self._admin.committed(group, source.destination.name):
            raise DestinationNotFound(f"{source} does not exist (group {group!r} has no position): declare it first")
        if self._shorten_sessions:
            self._admin.configure(ResourceType.GROUP, group, {"consumer.session.timeout.ms": str(_REPLACED_WITHIN)})
        copies = self._copies_to(source)
        config = self._consumer_config(group)
        return self._keep(GroupReceiver(source, options, config, group, self._admin, copies, self._forget))

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

    def _keep(self, receiver: Receiver) -> Receiver:
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
        return lag_of(self._admin, group, source.destination.name)

    def purge(self, source: Source) -> None:
        self._check_open()
        topic = source.destination.name
        ends = self._admin.ends(topic)
        if not isinstance(source.destination, Topic):
            self._admin.delete_records(topic, ends)
            retry = retry_name(source.name)
            if self._admin.partitions([retry])[retry] is not None:
                self._admin.delete_records(retry, self._admin.ends(retry))
            return
        group = group_of(source)
        held: set[int] = set()
        for receiver in self._receivers(group):
            held |= receiver.skip_to(ends)
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
