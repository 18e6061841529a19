"""What the suite needs to know about one broker: how to connect, and what may be done to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import messaging
from messaging import Broker, Capabilities
from messaging.concerns import Concern
from messaging.errors import MessagingError
from messaging.topology import Source
from messaging_contract.clause import Clause, Kind
from messaging_contract.conditions import Congestion, Expiring, Impatient, Narrow, Place, ShortAckTimeout, Special
from messaging_contract.drift import Drift
from messaging_contract.sql.database import Database

if TYPE_CHECKING:
    from messaging_contract.faults.proxy import Direction

Connect = Callable[..., Broker]
"""Takes the keyword arguments of `messaging.connect`."""

Foreign = Callable[[Source, bytes, dict[str, str]], None]
"""Puts a body with headers into a queue with the client library alone, as another program would.

Raises ValueError for a body that this broker has no message of."""
Joined = Callable[[Source, int], bool]
"""Whether so many consumers of a source have their shares of it: none will lose a message to another."""

Remains = Callable[[Collection[str]], set[str]]
"""Of the queues and topics by these names, those of which something is still there that was to be deleted."""


class Link(Protocol):
    """A connection between client and broker that can be broken and slowed."""

    def connect(self, **options: Any) -> Broker:
        """As `Harness.connect`, through this link."""

    def cut(self, direction: Direction = "both", /) -> None:
        """Resets every connection and refuses new ones until `resume`; one way: ends that way of every connection."""

    def blackhole(self, direction: Direction = "both", /) -> None:
        """Lets connections stand and carries nothing that way until `resume`."""

    def delay(self, seconds: float, direction: Direction = "both", /) -> None:
        """Carries everything at least `seconds` later that way, until `resume`."""

    def throttle(self, bytes_per_second: float, direction: Direction = "both", /) -> None:
        """Carries at most so many bytes a second that way on each connection, until `resume`."""

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

    restart: stops the broker and starts it again; messages survive. kill: the same without a warning (SIGKILL). pause,
    unpause: freezes the broker. alarm, clear_alarm: makes the broker short of memory, so that it blocks publishers.
    advance: moves the broker's clock on by seconds.
    link: a new breakable connection. at: the URL of the same kind of broker at another host and port.
    several_hosts: a URL that names a dead host before the live one. wrong_credentials: a URL with credentials that
    the broker refuses. exclusive: None for an emulator that may give a message, or the messages of a key, to two
    consumers at once, which no broker does. joined: see `Joined`. foreign: see `Foreign`. url: a URL that
    `messaging.connect` takes; remote: one that other processes can use to reach the same broker. attempts_kept: whether
    attempts of that kind of destination are counted where the consumer's death does not reach them. impatient, narrow,
    special, place, short_ack_timeout, expiring, congested: see `conditions`. drift: see `drift`. spares: why a clause
    is not to be run, empty for one that is. remains: see `Remains`. concerns: what was found in the settings. database:
    for the patterns on SQL; a temporary one unless told. in_memory: is there for the memory broker, where clauses about
    the database alone are run.
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
    kill: Callable[[], None] | None = None
    alarm: Callable[[], None] | None = None
    clear_alarm: Callable[[], None] | None = None
    advance: Callable[[float], None] | None = None
    link: Callable[[], Link] | None = None
    at: Callable[[str, int], str] | None = None
    remote: str | None = None
    several_hosts: str | None = None
    wrong_credentials: str | None = None
    exclusive: bool | None = True
    joined: Joined | None = None
    foreign: Foreign | None = None
    attempts_kept: Callable[[Kind], bool] = lambda _kind: True
    impatient: Impatient | None = None
    narrow: Narrow | None = None
    special: Special | None = None
    drift: Drift | None = None
    place: Place | None = None
    short_ack_timeout: ShortAckTimeout | None = None
    expiring: Callable[[], Expiring] | None = None
    congested: Callable[[], Congestion] | None = None
    remains: Remains | None = None
    spares: Callable[[Clause], str] = lambda _clause: ""
    concerns: Sequence[Concern] = ()
    database: Database | None = field(default_factory=Database)
    in_memory: bool | None = None
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


def connect_to(url: str, **own: Any) -> Connect:
    """A `Connect` for a URL, and options of its own.

    Without a configuration file: what the one that happens to be here declares would be made on the broker.
    """

    def connect(**options: Any) -> Broker:
        return messaging.connect(url, **{"config_file": os.devnull, **own, **options})

    return connect
