"""Who is measured: each does the same work in its own best way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from threading import Event
from uuid import uuid4

SIZE = 256
"""Bytes of a payload."""

PAUSE = 0.005
"""Seconds between an arrival and the next publish when latency is measured."""

PAYLOAD = ("anybroker benchmark payload, 256 bytes of plain text. " * 5)[:SIZE].encode()


class Role(Enum):
    """OURS is compared with RAW and with every PEER; a VARIANT is another way to use ours, shown beside it."""

    OURS = "ours"
    VARIANT = "variant"
    RAW = "raw"
    PEER = "peer"


@dataclass(frozen=True)
class Settings:
    """The same for every contender.

    url: the broker. kind: "queue" or "topic". prefetch: messages a consumer holds unsettled. window: messages awaiting
    confirmation. linger: milliseconds Kafka producers wait for a batch. senders, receivers: threads of an SQS client.
    """

    url: str
    kind: str = "queue"
    prefetch: int = 200
    window: int = 1000
    linger: float = 2
    senders: int = 4
    receivers: int = 2
    extra: dict[str, str] = field(default_factory=dict)


class Contender:
    """One client library on one broker. What it cannot do it does not define.

    `carries`: what a message has beyond the payload. `share`: of the messages of a scenario, how many this one gets,
    for those that would take minutes. Every method returns when the work is confirmed by the broker.
    """

    name = ""
    role = Role.RAW
    carries = "nothing"
    share = 1.0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def open(self) -> None:
        """Connects; what a program does once."""

    def close(self) -> None:
        """Undoes `open`."""

    def create(self) -> str:
        """Makes an empty destination, ready to be published to and consumed from, and returns its name."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Deletes the destination and everything made for it."""
        raise NotImplementedError

    def publish_many(self, name: str, count: int) -> Run:
        """`count` persistent messages, each confirmed, many in flight."""
        raise NotImplementedError

    def publish_each(self, name: str, count: int) -> Run:
        """`count` persistent messages, each confirmed before the next is sent."""
        raise NotImplementedError

    def consume(self, name: str, count: int) -> Run:
        """Receives `count` messages that are there, looks at their bodies and acknowledges them."""
        raise NotImplementedError

    def latencies(self, name: str, count: int) -> list[float]:
        """Seconds from before a publish until a consumer has the message, one message at a time."""
        raise NotImplementedError

    def can(self, method: str) -> bool:
        """Whether this contender defines `method`."""
        return getattr(type(self), method) is not getattr(Contender, method)


@dataclass(frozen=True)
class Run:
    """So many messages in so many seconds."""

    messages: int
    seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


class Meter:
    """Times consuming from the first delivery on, so that joining a group does not count. For one thread at a time."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen = 0
        self._first = 0
        self._started = 0.0

    def add(self, messages: int) -> None:
        if not self.seen:
            self._first = messages
            self._started = time.perf_counter()
        self.seen += messages

    @property
    def done(self) -> bool:
        return self.seen >= self.wanted

    @property
    def missing(self) -> int:
        return self.wanted - self.seen

    def run(self) -> Run:
        """Call it when the last acknowledgement is at the broker."""
        seconds = time.perf_counter() - self._started
        return Run(max(self.seen - self._first, 1), seconds)


class Arrival:
    """When a message arrived: set by the consuming thread, waited for by the publishing one."""

    def __init__(self) -> None:
        self._event = Event()
        self._at = 0.0

    def mark(self) -> None:
        self._at = time.perf_counter()
        self._event.set()

    def ping(self, publish: Callable[[], object], count: int) -> list[float]:
        """Publishes `count` messages, each PAUSE after the one before arrived, so that the consumer is waiting again.

        The first tenth warms up and is left out.
        """
        times = []
        warm_up = max(count // 10, 1)
        for number in range(count + warm_up):
            self._event.clear()
            time.sleep(PAUSE)
            start = time.perf_counter()
            publish()
            if not self._event.wait(30.0):
                raise TimeoutError("a message did not arrive within 30 seconds")
            if number >= warm_up:
                times.append(self._at - start)
        return times


def unique_name(kind: str) -> str:
    """A destination name nobody else has."""
    return f"bench-{kind}-{uuid4().hex[:12]}"


def payloads(count: int) -> list[bytes]:
    """`count` bodies."""
    return [PAYLOAD] * count
