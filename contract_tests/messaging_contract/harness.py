"""What the suite needs to know about one broker: how to connect, and what may be done to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import messaging
from messaging import Broker, Capabilities
from messaging.errors import MessagingError
from messaging.topology import Source

Connect = Callable[..., Broker]
"""Takes the keyword arguments of `messaging.connect`."""

Foreign = Callable[[Source, bytes, dict[str, str]], None]
"""Puts a body with headers into a queue with the client library alone, as another program would."""
Joined = Callable[[Source, int], bool]
"""Whether so many consumers of a source have their shares of it: none will lose a message to another."""


class Link(Protocol):
    """A connection between client and broker that can be broken and slowed."""

    def connect(self, **options: Any) -> Broker:
        """As `Harness.connect`, through this link."""

    def cut(self) -> None:
        """Resets every connection and refuses new ones until `resume`."""

    def blackhole(self) -> None:
        """Lets connections stand and carries nothing until `resume`."""

    def delay(self, seconds: float) -> None:
        """Carries everything at least `seconds` later, each way, until `resume`."""

    def resume(self) -> None:
        """Carries everything again, at once."""

    def close(self) -> None:
        """Ends it. Idempotent."""


@dataclass
class Harness:
    """One broker under test. Used by one clause at a time.

    name: its column in the report. volume: the most messages a clause publishes, for slow brokers. quiet: seconds
    without a message that prove there is none. patience: seconds to wait for something that should happen. pace: what
    the delays that clauses ask for are multiplied with; below 1 where the broker keeps time to the millisecond. The
    optional members are the controls that clauses ask for by name; a clause whose control is missing is not run.

    restart: stops the broker and starts it again; messages survive. pause, unpause: freezes the broker.
    link: a new breakable connection. at: the URL of the same kind of broker at another host and port.
    several_hosts: a URL that names a dead host before the live one. wrong_credentials: a URL with credentials that
    the broker refuses. exclusive: None for an emulator that may give a message, or the messages of a key, to two
    consumers at once, which no broker does. joined: see `Joined`. foreign: see `Foreign`. url: a URL that
    `messaging.connect` takes; remote: one that other processes can use to reach the same broker.
    """

    name: str
    connect: Connect
    url: str | None = None
    volume: int = 5000
    quiet: float = 1.0
    patience: float = 30.0
    pace: float = 1.0
    restart: Callable[[], None] | None = None
    pause: Callable[[], None] | None = None
    unpause: Callable[[], None] | None = None
    link: Callable[[], Link] | None = None
    at: Callable[[str, int], str] | None = None
    remote: str | None = None
    several_hosts: str | None = None
    wrong_credentials: str | None = None
    exclusive: bool | None = True
    joined: Joined | None = None
    foreign: Foreign | None = None
    closing: list[Callable[[], None]] = field(default_factory=list)
    _shared: Broker | None = field(default=None, repr=False)

    @property
    def broker(self) -> Broker:
        """The connection that clauses share; made again when a clause broke it."""
        if self._shared is None or self._shared.closed:
            self._shared = self.connect()
        return self._shared

    @property
    def capabilities(self) -> Capabilities:
        return self.broker.capabilities

    def can(self, control: str) -> bool:
        """Whether it has the control of that name."""
        return getattr(self, control) is not None

    def renew(self) -> None:
        """Drops the shared connection, after a clause that hurt the broker."""
        if self._shared is not None:
            try:
                self._shared.close()
            except MessagingError:
                pass
            self._shared = None

    def close(self) -> None:
        """Disconnects and stops what was started for it. Idempotent."""
        self.renew()
        while self.closing:
            self.closing.pop()()


def connect_to(url: str) -> Connect:
    """A `Connect` for a URL."""

    def connect(**options: Any) -> Broker:
        return messaging.connect(url, **options)

    return connect
