"""RabbitMQ 3.10 and later, and 4.x, through pika."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any, ClassVar

from messaging.capabilities import Capabilities, emulated, native, unsupported
from messaging.concerns import Concern
from messaging.driver import Driver, Receiver, Sender
from messaging.errors import Closed, ConfigurationError, MessageTooLarge, MessagingError
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.plan import Finding, Part
from messaging.topology import Destination, Queue, Source, Topic, Topology
from messaging_rabbitmq import parts as made_of
from messaging_rabbitmq import topology as objects
from messaging_rabbitmq import wire
from messaging_rabbitmq.concerns import concerns
from messaging_rabbitmq.copies import Copies
from messaging_rabbitmq.definitions import definitions
from messaging_rabbitmq.flow import Steps
from messaging_rabbitmq.inspection import inspect
from messaging_rabbitmq.link import Link
from messaging_rabbitmq.options import RabbitMQOptions
from messaging_rabbitmq.receiver import RabbitMQReceiver
from messaging_rabbitmq.sender import RabbitMQSender
from messaging_rabbitmq.waits import WaitQueues

log = logging.getLogger(__name__)

_FRAME_MAX = 131072
_SMALL_HEADERS = 1000
_RESERVED_HEADERS = 8192
_CLOSE_SECONDS = 6.0
_COPY_SECONDS = 30.0
_DECLARE_SECONDS = 60.0


def capabilities(version: made_of.Version) -> Capabilities:
    """What RabbitMQ of this version does."""
    return Capabilities(
        queues=native("quorum queue"),
        topics=native("topic exchange, one quorum queue a subscription"),
        patterns=native("binding key; the routing key is the type"),
        ordering=native("single active consumer, lanes in the consumer"),
        nack_delay=emulated("copy in a wait queue of the subscription and delay"),
        dead_letter=emulated("confirmed copy; dead-letter exchange, at least once, as a backstop"),
        delayed_queue=emulated("wait queue of the queue and delay"),
        delayed_topic=emulated("wait queue of the topic and delay"),
        ttl=emulated("expiry in a header, checked at delivery"),
        mandatory=native("mandatory flag"),
        lease=unsupported("a message is the consumer's until its connection ends"),
        replay=unsupported("an acknowledged message is gone"),
        lag=native("queue depth and unsettled deliveries"),
        transactions=unsupported("an ack and a publish are two steps"),
        max_message_bytes=version.max_message_bytes,
        max_delay=made_of.MAX_DELAY,
    )


class RabbitMQDriver(Driver):
    """One connection for publishing and topology, and one for consuming, so that a blocked publisher stops no acks.

    Any thread may call it; `_lock` guards the open senders and receivers, the declared topology and the links.
    """

    name: ClassVar[str] = "rabbitmq"
    Options: ClassVar[type[Any]] = RabbitMQOptions
    surely_fits: ClassVar[int] = _FRAME_MAX
    export_formats: ClassVar[Sequence[str]] = ("rabbitmq",)

    def __init__(self, options: RabbitMQOptions) -> None:
        super().__init__(options)
        self._lock = RLock()
        self._publishing = Link(options, "publish", self._restore_all)
        self._consuming: Link | None = None
        self._version = made_of.Version(3, 10)
        self._declared = Topology()
        self._senders: list[RabbitMQSender] = []
        self._receivers: list[RabbitMQReceiver] = []
        self._waits: WaitQueues | None = None
        self._copier: RabbitMQSender | None = None
        self._closed = False
        self.capabilities = capabilities(self._version)

    @classmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        return [
            ("RabbitMQ 3.x", capabilities(made_of.Version(3, 10))),
            ("RabbitMQ 4.x", capabilities(made_of.Version(4, 0))),
        ]

    def open(self) -> None:
        self._publishing.start()
        self._version = made_of.Version.of(self._publishing.server_properties)
        self.capabilities = capabilities(self._version)
        self._waits = WaitQueues(self._publishing, self._version)

    @property
    def version(self) -> str:
        told = self._publishing.server_properties
        words = [told.get(name, "") for name in ("product", "version")]
        return " ".join(word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in words)

    def declare(self, topology: Topology, create: bool) -> None:
        parts = made_of.parts_of(topology, self._version)
        self._run(objects.declare(parts, create), "declare the topology", _DECLARE_SECONDS)
        if create:
            with self._lock:
                self._declared = self._declared.merge(topology)

    def assume(self, version: str | None) -> str:
        self._version = made_of.NEWEST if version is None else made_of.Version.parse(version)
        self.capabilities = capabilities(self._version)
        return f"RabbitMQ {self._version.major}.{self._version.minor}"

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        made = made_of.parts_of(topology, self._version)
        return made + made_of.retry_parts(topology, self._version, delays)

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        found: list[Finding] = self._run(inspect(parts), "look at the topology", _DECLARE_SECONDS)
        return found

    def leftovers(self, topology: Topology, delays: Sequence[float] | None) -> list[Part]:
        if delays is None:
            return []  # only who says which delays there are can be told which there were
        used = {part.name for part in made_of.retry_parts(topology, self._version, delays)}
        found: list[Part] = self._run(objects.leftovers(topology, used), "look for wait queues", _DECLARE_SECONDS)
        return found

    def concerns(self, topology: Topology, delays: Sequence[float] = ()) -> list[Concern]:
        self._check_open()
        return concerns(self.options, self._version, self.plan(topology, delays))

    def export(self, parts: Sequence[Part], format: str) -> str:
        if format not in self.export_formats:
            raise ConfigurationError(f"rabbitmq: no export as {format!r}; there is {', '.join(self.export_formats)}")
        return definitions(parts, self.options.vhost)

    def check(self, message: Message, destination: Destination) -> None:
        super().check(message, destination)
        headers = message.headers
        if not headers or sum(map(len, headers)) + sum(map(len, headers.values())) < _SMALL_HEADERS:
            return
        connection = self._publishing.connection
        frame_max = _FRAME_MAX if connection is None else connection.frame_max
        try:
            # What a retry or a dead letter adds has to fit too.
            wire.content_frames(replace(message, body=b""), 0, 1, frame_max - _RESERVED_HEADERS)
        except MessageTooLarge as error:
            raise MessageTooLarge(
                f"publish to {destination.name!r}: the headers of message {message.id} are too large for one AMQP "
                f"frame of {frame_max} bytes; nothing was sent: put them in the body"
            ) from error

    def sender(self, options: ProducerOptions) -> Sender:
        with self._lock:
            sender = self._new_sender(options.timeout)
            self._senders.append(sender)
            return sender

    def receiver(self, source: Source, options: ConsumerOptions) -> Receiver:
        timeout = self.options.connect_timeout
        with self._lock:
            self._check_open()
            if self._copier is None:
                self._copier = self._new_sender(_COPY_SECONDS)
            if self._consuming is None:
                link = Link(self.options, "consume", self._restore_all)
                link.start()
                self._consuming = link
            copies = Copies(source, self._copier)
            receiver = RabbitMQReceiver(
                self._consuming, source, options, copies, self._restorer(source), self._forget_receiver
            )
            copies.settled = receiver.settled_copy
            copies.failed = receiver.failed_copy
            copies.park = receiver.park
            self._receivers.append(receiver)
        receiver.open(timeout)
        return receiver

    def depth(self, source: Source) -> int:
        ready: int = self._run(objects.depth(source.name), f"look at {source}", self.options.connect_timeout)
        return ready

    def purge(self, source: Source) -> None:
        self._run(objects.purge(source.name), f"purge {source}", _DECLARE_SECONDS)

    def delete(self, topology: Topology) -> None:
        with self._lock:
            gone = {destination.name for destination in topology}
            self._declared = Topology(*(d for d in self._declared if d.name not in gone))
        self._run(objects.delete(topology), "delete the topology", _DECLARE_SECONDS)
        if self._waits is not None:
            self._publishing.submit(self._waits.clear)

    def ping(self) -> None:
        self._run(_nothing(), "ping", self.options.connect_timeout)

    @property
    def native(self) -> Any:
        """The publishing pika connection; only its add_callback_threadsafe may be called from outside."""
        return self._publishing.connection

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            receivers, senders, copier = list(self._receivers), list(self._senders), self._copier
        # One deadline for all: a broker that does not answer the first will not answer the others.
        deadline = time.monotonic() + _CLOSE_SECONDS
        for receiver in receivers:
            receiver.close_within(max(deadline - time.monotonic(), 0.1))
        for sender in senders:
            sender.close(max(deadline - time.monotonic(), 0.1))
        if copier is not None:
            copier.close(max(min(deadline - time.monotonic(), 1.0), 0.1))
        links = [link for link in (self._consuming, self._publishing) if link is not None]
        for link in links:
            link.say_goodbye()
        for link in links:
            link.close()

    def _new_sender(self, timeout: float) -> RabbitMQSender:
        self._check_open()
        assert self._waits is not None, "open() comes first"
        return RabbitMQSender(self._publishing, self._waits, timeout, self._forget_sender)

    def _run(self, steps: Steps, what: str, timeout: float) -> Any:
        self._check_open()
        return self._publishing.run(steps, what, timeout)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the connection to RabbitMQ is closed")

    def _forget_sender(self, sender: RabbitMQSender) -> None:
        with self._lock:
            if sender in self._senders:
                self._senders.remove(sender)

    def _forget_receiver(self, receiver: RabbitMQReceiver) -> None:
        with self._lock:
            if receiver in self._receivers:
                self._receivers.remove(receiver)

    def _restore_all(self) -> Steps:
        """After a reconnect: everything declared here, in case the broker came back without it."""
        for destination in self._declared:
            try:
                yield from self._declare_again(Topology(destination))
            except MessagingError as error:
                log.error("RabbitMQ: %r could not be declared again: %s", destination.name, error)

    def _declare_again(self, topology: Topology) -> Steps:
        yield from objects.declare(made_of.parts_of(topology, self._version), True)

    def _restorer(self, source: Source) -> Callable[[], Steps]:
        def restore() -> Steps:
            destination = self._declared.get(source.destination.name)
            if isinstance(destination, Queue):
                yield from self._declare_again(Topology(destination))
            elif isinstance(destination, Topic) and source.subscription in destination.subscriptions:
                only = Topic(
                    destination.name, source.subscription, ordered=destination.ordered, native=destination.native
                )
                yield from self._declare_again(Topology(only))
            else:
                yield from objects.depth(source.name)

        return restore


def _nothing() -> Steps:
    yield lambda channel, reply: channel.basic_qos(prefetch_count=1, callback=reply)
