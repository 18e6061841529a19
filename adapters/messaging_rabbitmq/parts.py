"""What queues, topics and subscriptions are made of: quorum queues, exchanges and bindings, with every argument."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from messaging.errors import ConfigurationError, UnsupportedCapability
from messaging.names import SEPARATOR
from messaging.patterns import MATCH_ALL
from messaging.plan import Part
from messaging.topology import Queue, Source, Subscription, Topic, Topology, sources_of

NAME = "rabbitmq"
MAX_DELAY = 24 * 86400.0
"""Seconds. RabbitMQ's timers take 32-bit milliseconds; two significant digits above 24 days still fit in 31."""

SINK = f"messaging{SEPARATOR}delay{SEPARATOR}sink"
_QUEUE_OPTIONS = ("type", "max_length", "consumer_timeout")
_TOPIC_OPTIONS = ("exchange",)
_NEVER = 2**31 - 1
_MARKER = f"{SEPARATOR}pattern"

QUEUE, EXCHANGE, BINDING, EXCHANGE_BINDING = "queue", "exchange", "binding", "exchange binding"
"""The kinds of parts."""


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

    @classmethod
    def parse(cls, text: str) -> Version:
        """Reads what a user gave: "4", "3.13", "4.1.2". Raises ConfigurationError."""
        found = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3})(?:\.[\w.-]+)?)?", text)
        version = cls(int(found[1]), int(found[2] or 0)) if found else cls(0, 0)
        if (version.major, version.minor) < (3, 10):
            raise ConfigurationError(
                f"{text!r} is not a version of RabbitMQ that is supported: 3.10 or later, as in 3.13"
            )
        return version

    @property
    def unlimited_is_minus_one(self) -> bool:
        """4.x has a delivery limit of 20 unless told otherwise; 3.x has none, and takes -1 for "at once"."""
        return self.major >= 4

    @property
    def max_message_bytes(self) -> int:
        """The default of max_message_size."""
        return (16 if self.major >= 4 else 128) * 1024 * 1024


NEWEST = Version(4, 1)


def round_delay(seconds: float) -> int:
    """Milliseconds, rounded up to two significant digits: at most 90 wait queues a factor of ten."""
    milliseconds = max(math.ceil(seconds * 1000 - 1e-6), 1)
    step: int = 10 ** max(len(str(milliseconds)) - 2, 0)
    return -(-milliseconds // step) * step


def all_delays(digits: int) -> range:
    """Every value of that many digits that `round_delay` can return."""
    return range(10 ** (digits - 1), 10**digits, 10 ** max(digits - 2, 0))


DIGITS = range(1, len(str(int(MAX_DELAY * 1000))) + 1)


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


def check_nack(source: Source, delay: float, consumer_timeout: float) -> None:
    """Raises UnsupportedCapability for a retry of `source` that RabbitMQ cannot delay by as many seconds.

    An ordered message waits unacknowledged in its consumer, and comes again early once the consumer timeout ends
    (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout). consumer_timeout: the broker's.
    """
    if source.ordered:
        longest = float(native(_holder(source)).get("consumer_timeout", consumer_timeout))
        if delay > longest:
            raise UnsupportedCapability(
                f"a retry of {source} after {delay:g} s: an ordered message waits in its consumer, where RabbitMQ "
                f"leaves it for its consumer timeout, here {longest:g} s in all. Retry sooner; or raise that in the "
                f"broker's configuration, and tell by the connection's option consumer_timeout; or make the queue anew "
                'with native={"rabbitmq": {"consumer_timeout": seconds}} (3.12 and later)'
            )
    elif delay > MAX_DELAY:
        raise UnsupportedCapability(f"a retry of {source} after {delay:g} s: RabbitMQ waits {MAX_DELAY:g} s at most")


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


def exchange_type(topic: Topic) -> str:
    kind: str = native(topic).get("exchange", "topic")
    for subscription in topic.subscriptions:
        pattern = subscription.pattern
        if kind == "fanout" and pattern != MATCH_ALL:
            raise ConfigurationError(f"topic {topic.name!r} is a fanout exchange, which cannot match {pattern!r}")
        if kind == "direct" and ("*" in pattern or "#" in pattern):
            raise ConfigurationError(f"topic {topic.name!r} is a direct exchange, which cannot match {pattern!r}")
    return kind


def parts_of(topology: Topology, version: Version) -> list[Part]:
    """What declaring `topology` makes, in order. Raises ConfigurationError, UnsupportedCapability."""
    found: list[Part] = []
    for destination in topology:
        if isinstance(destination, Topic):
            settings = {"type": exchange_type(destination)}
            found.append(Part(EXCHANGE, destination.name, settings, "takes what is published to the topic; durable"))
        for source in sources_of(destination):
            found += source_parts(source, version)
    return found


def source_parts(source: Source, version: Version) -> Iterator[Part]:
    """The queue behind one source, with its dead-letter queue (first: it is where the queue's dead letters go)."""
    if source.dead_letter is not None:
        parked = Source(source.dead_letter)
        why = f"keeps what {source} rejected; nothing leaves it by itself, so a dead letter cannot go in circles"
        yield Part(QUEUE, parked.name, queue_arguments(parked, version), why)
    arguments = queue_arguments(source, version)
    yield Part(QUEUE, source.name, arguments, _why_safe(source, arguments))
    if source.subscription is not None:
        pattern = source.pattern
        why = "remembers the pattern, since AMQP cannot list bindings; nobody publishes to it"
        alternate = f"{marker_of(source)}{SEPARATOR}{pattern}"
        yield Part(EXCHANGE, marker_of(source), {"type": "fanout", "alternate-exchange": alternate}, why)
        topic = source.destination.name
        settings = {"source": topic, "destination": source.name, "routing_key": pattern}
        what = "every message" if pattern == MATCH_ALL else f"what matches {pattern}"
        yield Part(BINDING, f"{topic} -> {source.name}", settings, f"gives the subscription a copy of {what}")


def _why_safe(source: Source, arguments: Mapping[str, Any]) -> str:
    """In words, from the arguments that there are."""
    reasons = ["replicated and on disk" if arguments["x-queue-type"] == "quorum" else "one replica only"]
    reasons.append("a full queue refuses a publish instead of dropping a message")
    if "x-dead-letter-strategy" in arguments:
        reasons.append("dead letters are kept until the dead-letter queue has confirmed them")
    elif "x-dead-letter-exchange" in arguments:
        reasons.append("the broker's own dead letters are not confirmed (classic queue)")
    if "x-delivery-limit" in arguments:
        reasons.append("no delivery limit drops what a crashing consumer held")
    if "x-single-active-consumer" in arguments:
        reasons.append("one consumer at a time, so order is kept")
    return f"holds what waits for {source}: " + "; ".join(reasons)


def retry_parts(topology: Topology, version: Version, delays: Sequence[float]) -> list[Part]:
    """What the retries of `topology` make when they are first used. Raises UnsupportedCapability for a long delay.

    Those of an ordered source make nothing: its messages wait in their consumer.
    """
    found: dict[tuple[str, str], Part] = {}
    for source in topology.sources:
        if source.ordered:
            continue
        for delay in delays:
            check_nack(source, delay, math.inf)
            for part in wait_parts(WaitQueue(source.name, round_delay(delay), "retry"), version):
                found[part.kind, part.name] = part
    return list(found.values())


def wait_parts(wait: WaitQueue, version: Version) -> list[Part]:
    """What a wait queue is made of, in order.

    A topic's delayed messages come back through a fanout exchange that also feeds a sink: at-least-once dead lettering
    keeps what nobody takes and retries 32 messages for ever, and a topic may well have no subscription for a type.
    """

    def part(kind: str, name: str, settings: Mapping[str, Any], why: str) -> Part:
        return Part(kind, name, settings, why, on_demand=True)

    def bound(exchange: str, to: str, kind: str = BINDING) -> Part:
        settings = {"source": exchange, "destination": to, "routing_key": ""}
        return part(kind, f"{exchange} -> {to}", settings, "on the way of a delayed message")

    seconds = f"{wait.milliseconds / 1000:g} s"
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-message-ttl": wait.milliseconds,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
    }
    if version.unlimited_is_minus_one:
        arguments["x-delivery-limit"] = -1
    why = (
        f"messages wait {seconds} in it, all equally long, then go to {wait.target}, confirmed; no other source uses it"
    )
    marks = "says that there are wait queues, since AMQP cannot list queues; nobody publishes to it"
    found = [part(EXCHANGE, marker, {"type": "fanout"}, marks) for marker in wait.markers]
    if not wait.topic:
        arguments["x-dead-letter-routing-key"] = wait.target
        return [*found, part(QUEUE, wait.name, arguments, why)]
    due = f"{wait.target}{SEPARATOR}due"
    arguments["x-dead-letter-exchange"] = due
    sink = {"x-queue-type": "classic", "x-max-length": 0, "x-overflow": "drop-head"}
    return [
        *found,
        part(QUEUE, SINK, sink, "takes what no subscription wants, so that it does not block what waits"),
        part(EXCHANGE, due, {"type": "fanout"}, "where delayed messages of the topic come back"),
        bound(due, SINK),
        bound(due, wait.target, EXCHANGE_BINDING),
        part(QUEUE, wait.name, arguments, why),
        part(EXCHANGE, wait.name, {"type": "fanout"}, "keeps the routing key of what waits"),
        bound(wait.name, wait.name),
    ]


def marker_of(source: Source) -> str:
    """The exchange that remembers a subscription's pattern."""
    return f"{source.name}{_MARKER}"


def is_marker(part: Part) -> bool:
    return part.kind == EXCHANGE and part.name.endswith(_MARKER)


def marked_pattern(part: Part, alternate: str) -> str:
    """The pattern that a marker with that alternate exchange remembers."""
    return alternate.removeprefix(f"{part.name}{SEPARATOR}")


def marker_source(marker: Part) -> str:
    """The name of the subscription that a marker belongs to."""
    return marker.name.removesuffix(_MARKER)
