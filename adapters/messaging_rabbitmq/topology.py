"""Queues, topics and subscriptions as quorum queues, exchanges and bindings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pika import exceptions

from messaging.errors import ConfigurationError, TopologyError, UnsupportedCapability
from messaging.names import SEPARATOR
from messaging.patterns import MATCH_ALL
from messaging.topology import Destination, Queue, Source, Subscription, Topic, Topology, sources_of
from messaging_rabbitmq.failures import NOT_FOUND, REFUSED, channel_failure
from messaging_rabbitmq.flow import Request, Steps

NAME = "rabbitmq"
MAX_DELAY = 24 * 86400.0
"""Seconds. RabbitMQ's timers take 32-bit milliseconds; two significant digits above 24 days still fit in 31."""

SINK = f"messaging{SEPARATOR}delay{SEPARATOR}sink"
_QUEUE_OPTIONS = ("type", "max_length", "consumer_timeout")
_TOPIC_OPTIONS = ("exchange",)
_NEVER = 2**31 - 1


@dataclass(frozen=True)
class Version:
    """The broker's version, from the connection's server_properties.

    A declare that succeeded tells nothing: RabbitMQ 3.x accepts arguments it does not know, or misreads them.
    """

    major: int
    minor: int

    @classmethod
    def of(cls, properties: Mapping[str, Any] | None) -> Version:
        """Reads "4.0.5" or "3.10.8-rc.1". Unknown ones count as 3.10, the oldest that is supported."""
        value = (properties or {}).get("version", "")
        words = (value.decode() if isinstance(value, bytes) else str(value)).split(".")
        try:
            return cls(int(words[0]), int(words[1]))
        except (ValueError, IndexError):
            return cls(3, 10)

    @property
    def unlimited_is_minus_one(self) -> bool:
        """4.x has a delivery limit of 20 unless told otherwise; 3.x has none, and takes -1 for "at once"."""
        return self.major >= 4

    @property
    def max_message_bytes(self) -> int:
        """The default of max_message_size."""
        return (16 if self.major >= 4 else 128) * 1024 * 1024


def round_delay(seconds: float) -> int:
    """Milliseconds, rounded up to two significant digits: at most 90 wait queues a factor of ten."""
    milliseconds = max(math.ceil(seconds * 1000 - 1e-6), 1)
    step: int = 10 ** max(len(str(milliseconds)) - 2, 0)
    return -(-milliseconds // step) * step


def all_delays(digits: int) -> range:
    """Every value of that many digits that `round_delay` can return."""
    return range(10 ** (digits - 1), 10**digits, 10 ** max(digits - 2, 0))


_DIGITS = range(1, len(str(int(MAX_DELAY * 1000))) + 1)


@dataclass(frozen=True)
class WaitQueue:
    """Where messages wait `milliseconds`, then go to the queue or topic `target`."""

    target: str
    milliseconds: int
    purpose: str = "delay"
    topic: bool = False

    @property
    def name(self) -> str:
        return f"{self.target}{SEPARATOR}{self.purpose}{SEPARATOR}{self.milliseconds}"

    @property
    def markers(self) -> tuple[str, str]:
        """Exchanges without bindings that say: the target has wait queues, and some with that many digits.

        AMQP cannot list queues, so `delete` could only try every name there may be; these tell it where to look.
        """
        mark = f"{self.target}{SEPARATOR}{self.purpose}"
        return mark, f"{mark}{SEPARATOR}{len(str(self.milliseconds))}-digits"

    @property
    def exchange(self) -> str:
        """Where to publish: for a topic an exchange of its own, so that the routing key stays the type."""
        return self.name if self.topic else ""


def native(value: Queue | Topic | Subscription) -> Mapping[str, Any]:
    """The options for this adapter, checked. Raises ConfigurationError."""
    options = value.native.get(NAME, {})
    known = _TOPIC_OPTIONS if isinstance(value, Topic) else _QUEUE_OPTIONS
    for name in options:
        if name not in known:
            raise ConfigurationError(
                f"native rabbitmq option {name!r} is not known for {value}: use {', '.join(known)}"
            )
    _one_of(options, "type", "quorum", "classic")
    _one_of(options, "exchange", "topic", "direct", "fanout")
    for name in ("max_length", "consumer_timeout"):
        given = options.get(name, 1)
        if isinstance(given, bool) or not isinstance(given, int | float) or given <= 0:
            raise ConfigurationError(f"native rabbitmq option {name} must be a positive number, not {given!r}")
    if not isinstance(options.get("max_length", 1), int):
        raise ConfigurationError("native rabbitmq option max_length must be a whole number of messages")
    return options


def _one_of(options: Mapping[str, Any], name: str, *values: str) -> None:
    if options.get(name, values[0]) not in values:
        raise ConfigurationError(f"native rabbitmq option {name} must be one of {values}, not {options[name]!r}")


def is_classic(source: Source) -> bool:
    """Whether the queue behind `source` is a classic one, which counts no deliveries."""
    return native(_holder(source)).get("type") == "classic"


def _holder(source: Source) -> Queue | Subscription:
    if source.subscription is not None:
        return source.subscription
    assert isinstance(source.destination, Queue)
    return source.destination


def queue_arguments(source: Source, version: Version) -> dict[str, Any]:
    """The arguments of the queue behind `source`. Raises ConfigurationError, UnsupportedCapability."""
    options = native(_holder(source))
    quorum = options.get("type", "quorum") == "quorum"
    # reject-publish: a full queue refuses a message loudly instead of dropping the oldest one.
    arguments: dict[str, Any] = {"x-queue-type": "quorum" if quorum else "classic", "x-overflow": "reject-publish"}
    if quorum and version.unlimited_is_minus_one:
        arguments["x-delivery-limit"] = -1
    elif quorum and source.ordered:
        # Without any limit 3.x puts returned messages at the back of the queue, with one at their old place.
        arguments["x-delivery-limit"] = _NEVER
    if source.ordered:
        arguments["x-single-active-consumer"] = True
    if "max_length" in options:
        arguments["x-max-length"] = options["max_length"]
    if "consumer_timeout" in options:
        if (version.major, version.minor) < (3, 12):
            raise UnsupportedCapability(
                f"{source}: RabbitMQ {version.major}.{version.minor} has no consumer timeout for one queue; 3.12 has"
            )
        arguments["x-consumer-timeout"] = int(options["consumer_timeout"] * 1000)
    if source.dead_letter is not None:
        arguments["x-dead-letter-exchange"] = ""
        arguments["x-dead-letter-routing-key"] = source.dead_letter.name
        if quorum:
            arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments


def _exchange_type(topic: Topic) -> str:
    kind: str = native(topic).get("exchange", "topic")
    for subscription in topic.subscriptions:
        pattern = subscription.pattern
        if kind == "fanout" and pattern != MATCH_ALL:
            raise ConfigurationError(f"topic {topic.name!r} is a fanout exchange, which cannot match {pattern!r}")
        if kind == "direct" and ("*" in pattern or "#" in pattern):
            raise ConfigurationError(f"topic {topic.name!r} is a direct exchange, which cannot match {pattern!r}")
    return kind


def _queue(name: str, arguments: dict[str, Any] | None = None, passive: bool = False) -> Request:
    return lambda channel, reply: channel.queue_declare(
        name, durable=True, passive=passive, arguments=arguments, callback=reply
    )


def _exchange(name: str, kind: str, passive: bool = False, alternate: str = "") -> Request:
    arguments = {"alternate-exchange": alternate} if alternate else None
    return lambda channel, reply: channel.exchange_declare(
        name, kind, durable=True, passive=passive, arguments=arguments, callback=reply
    )


def _bind(queue: str, exchange: str, pattern: str) -> Request:
    return lambda channel, reply: channel.queue_bind(queue, exchange, pattern, callback=reply)


def check(topology: Topology, version: Version) -> None:
    """Raises what is wrong with `topology` itself, before anything is sent."""
    for destination in topology:
        if isinstance(destination, Topic):
            _exchange_type(destination)
        for source in sources_of(destination):
            queue_arguments(source, version)


def declare(topology: Topology, version: Version, create: bool) -> Steps:
    """Creates what is missing, or only looks. Raises as `Driver.declare`."""
    for destination in topology:
        if isinstance(destination, Topic):
            yield from _ensure_exchange(destination, create)
        for source in sources_of(destination):
            yield from declare_source(source, version, create)


def declare_source(source: Source, version: Version, create: bool) -> Steps:
    """The queue behind one source, with its dead-letter queue (first: it is where the queue's dead letters go)."""
    if source.dead_letter is not None:
        parked = Source(source.dead_letter)
        yield from _ensure_queue(parked.name, queue_arguments(parked, version), create)
    yield from _ensure_queue(source.name, queue_arguments(source, version), create)
    if source.subscription is not None:
        yield from _ensure_pattern(source, create)
    if create and source.subscription is not None:
        what = f"bind {source} with {source.pattern!r}"
        yield from _try(_bind(source.name, source.destination.name, source.pattern), what)


def _pattern_marker(source: Source) -> str:
    return f"{source.name}{SEPARATOR}pattern"


def _ensure_pattern(source: Source, create: bool) -> Steps:
    """Sees to it that a subscription keeps its pattern: with another one it would have the bindings of both.

    AMQP cannot list bindings. An exchange to which nobody publishes remembers the pattern, as the name of its alternate
    exchange, which is the one argument of an exchange that RabbitMQ compares.
    """
    marker = _pattern_marker(source)
    if not create and (yield from _missing(marker)):
        return  # bound by somebody else's hand
    try:
        yield from _try(
            _exchange(marker, "fanout", alternate=f"{marker}{SEPARATOR}{source.pattern}"),
            f"declare {source}",
            forgive_refusal=not create,
        )
    except TopologyError as error:
        raise TopologyError(
            f"{source} exists with another pattern than {source.pattern!r}, whose messages it would go on to get: "
            f"declare it as it is, choose another group, or drain and delete the topic ({error})"
        ) from error


def _ensure_queue(name: str, arguments: dict[str, Any], create: bool) -> Steps:
    if not create:
        yield from _try(_queue(name, passive=True), f"look for queue {name!r}")
    # It exists: declaring it again compares the arguments and creates nothing.
    yield from _try(_queue(name, arguments), f"declare queue {name!r}", forgive_refusal=not create)


def _ensure_exchange(topic: Topic, create: bool) -> Steps:
    kind = _exchange_type(topic)
    if not create:
        yield from _try(_exchange(topic.name, kind, passive=True), f"look for topic {topic.name!r}")
    yield from _try(_exchange(topic.name, kind), f"declare topic {topic.name!r}", forgive_refusal=not create)


def declare_wait_queue(wait: WaitQueue, version: Version) -> Steps:
    """A queue whose messages all live equally long, so that the head is always the first to go.

    Raises DestinationNotFound when the target is not there. A topic's delayed messages come back through a fanout
    exchange that also feeds a sink: at-least-once dead lettering keeps what nobody takes and retries 32 messages
    for ever, and a topic may well have no subscription for a type.
    """
    what = f"prepare {wait.name!r}"
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-message-ttl": wait.milliseconds,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
    }
    if version.unlimited_is_minus_one:
        arguments["x-delivery-limit"] = -1
    look = _exchange(wait.target, "topic", passive=True) if wait.topic else _queue(wait.target, passive=True)
    yield from _try(look, what)
    for marker in wait.markers:
        yield from _try(_exchange(marker, "fanout"), what)
    if not wait.topic:
        arguments["x-dead-letter-routing-key"] = wait.target
        yield from _try(_queue(wait.name, arguments), what)
        return
    due = f"{wait.target}{SEPARATOR}due"
    yield from _try(_queue(SINK, {"x-queue-type": "classic", "x-max-length": 0, "x-overflow": "drop-head"}), what)
    yield from _try(_exchange(due, "fanout"), what)
    yield from _try(_bind(SINK, due, ""), what)
    yield from _try(lambda channel, reply: channel.exchange_bind(wait.target, due, "", callback=reply), what)
    arguments["x-dead-letter-exchange"] = due
    yield from _try(_queue(wait.name, arguments), what)
    yield from _try(_exchange(wait.name, "fanout"), what)
    yield from _try(_bind(wait.name, wait.name, ""), what)


def _try(request: Request, what: str, forgive_refusal: bool = False) -> Steps:
    try:
        return (yield request)
    except exceptions.ChannelClosedByBroker as error:
        if forgive_refusal and error.reply_code == REFUSED:
            return None
        raise channel_failure(error, what) from error


def depth(name: str) -> Steps:
    """The number of ready messages."""
    reply = yield from _try(_queue(name, passive=True), f"look at queue {name!r}")
    return reply.method.message_count


def purge(name: str) -> Steps:
    """Drops every ready message."""
    yield from _try(lambda channel, reply: channel.queue_purge(name, callback=reply), f"purge queue {name!r}")


def delete(topology: Topology) -> Steps:
    """Deletes queues, exchanges, dead-letter queues and wait queues, whichever process made them."""
    for destination in topology:
        sources = sources_of(destination)
        queues = [source.name for source in sources] + [s.dead_letter.name for s in sources if s.dead_letter]
        topic = isinstance(destination, Topic)
        exchanges = [destination.name, f"{destination.name}{SEPARATOR}due"] if topic else []
        exchanges += [_pattern_marker(source) for source in sources] if topic else []
        waits = [WaitQueue(destination.name, 1, "delay", topic), *(WaitQueue(name, 1, "retry") for name in queues)]
        for any_wait in waits:
            waiting = yield from _wait_queues(any_wait)
            queues += [wait.name for wait in waiting]
            exchanges += [name for wait in waiting for name in ({wait.exchange, *wait.markers} - {""})]
        yield from _delete(queues, sorted(set(exchanges)), destination)


def _wait_queues(any_wait: WaitQueue) -> Steps:
    """Those that may exist."""
    found: list[WaitQueue] = []
    if (yield from _missing(any_wait.markers[0])):
        return found
    for digits in _DIGITS:
        some = [replace(any_wait, milliseconds=milliseconds) for milliseconds in all_delays(digits)]
        if not (yield from _missing(some[0].markers[1])):
            found += some
    return found


def _missing(exchange: str) -> Steps:
    try:
        yield _exchange(exchange, "fanout", passive=True)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise channel_failure(error, f"look for {exchange!r}") from error
        return True
    return False


def _delete(queues: list[str], exchanges: list[str], destination: Destination) -> Steps:
    def request(channel: Any, reply: Any) -> None:
        for name in exchanges:
            channel.exchange_delete(name)
        for name in queues:
            channel.queue_delete(name)
        # The broker works in order: once this is answered, the deletes are done.
        channel.basic_qos(prefetch_count=1, callback=reply)

    try:
        yield request
    except exceptions.ChannelClosedByBroker as error:
        raise channel_failure(error, f"delete {destination.name!r}") from error
