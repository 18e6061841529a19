"""What an adapter implements. Batch first and small; everything portable lives above it.

A driver is made by `connect`, from the adapter's own options dataclass, and is found by the entry point group
`messaging.adapters` under its URL scheme. Every error that leaves a driver is one of `messaging.errors`: a client
library's own exceptions are translated, and kept as `__cause__`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from messaging.capabilities import Capabilities
from messaging.delivery import Delivery, Settler
from messaging.errors import MessageTooLarge, MessagingError
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Destination, Source, Topology

Done = Callable[[int, MessagingError | None], None]
"""Called once for each message of a `send`, with its index and None when confirmed; does not block.

From any thread, but the calls for one `send` never overlap."""

Replay = str | float | Mapping[int, int]
"""Where to replay from: "beginning", seconds since the epoch, or an offset a partition."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """How the messages of one `send` travel. `delay`: seconds before they may be delivered."""

    destination: Destination
    delay: float = 0.0
    mandatory: bool = False


class Sender(ABC):
    """Sends messages and reports what became of each. Every method may be called from any thread."""

    @abstractmethod
    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        """Hands over `messages`, in order, and returns without waiting for the broker.

        `done(index, error)` is called exactly once for each message, no later than about `options.timeout` seconds
        after this call: None once the broker has safely stored it (RabbitMQ confirm, Kafka acks=all, SQS success
        entry), PublishFailed when the broker refused it, DestinationNotFound, PublishTimeout when the outcome is
        unknown. A batch entry that fails never fails its neighbours. A lost connection is regained and
        unconfirmed messages are sent again, with the same id, until their deadline. Messages of one caller to one
        destination are stored in the order given. May raise, before anything was sent and instead of calling
        `done`: InvalidMessage, MessageTooLarge, UnsupportedCapability, Closed. The caller bounds what is in
        flight; this method may block briefly only while the client's own buffer is full.
        """

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for what is in flight; the rest is `done` with PublishTimeout. Idempotent."""


class Receiver(Settler):
    """Reads one source. `receive`, `pause`, `resume` and `replay` are called by one thread at a time; the
    settling methods, `lag` and `close` from any thread, also while `receive` blocks.
    """

    @abstractmethod
    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        """Returns what is there, 1 to `max_messages`, waiting up to `timeout` seconds for the first.

        Returns an empty list at the deadline, and at once when closed by another thread. Never waits for more once
        there is one. Delivered or buffered and unsettled messages never exceed `options.prefetch`: at that mark it
        waits for a settlement. A lost connection is regained behind it, with topology, consumer and prefetch, while
        it returns empty lists. Raises what cannot heal: DestinationNotFound, AuthenticationFailed; and once each,
        SettleFailed for an earlier settlement that the broker refused. Raises Closed when already closed.
        """

    @abstractmethod
    def pause(self) -> None:
        """Take no further messages from the broker. Leases, heartbeats and group membership go on. Idempotent."""

    @abstractmethod
    def resume(self) -> None:
        """Undo `pause`. Idempotent."""

    @abstractmethod
    def lag(self) -> int:
        """How many messages of the source are not yet acknowledged, as exactly as the broker tells."""

    def is_live(self, delivery: Delivery) -> bool:
        """False when the connection or partition it came by is gone, so that somebody else gets it now."""
        return True

    def replay(self, since: Replay) -> None:
        """Go back to an earlier position. Only called when `capabilities.replay`; unsettled deliveries become stale."""
        raise NotImplementedError

    @abstractmethod
    def flush(self, timeout: float) -> None:
        """Waits until the settlements so far are carried out at the broker. Raises SettleFailed, BrokerUnavailable."""

    @abstractmethod
    def close(self) -> None:
        """Carries out settlements made so far, gives unsettled messages back so that others get them at once, stops.

        Bounded (about 10 seconds) even when the broker is gone. Idempotent.
        """


class Driver(ABC):
    """A connection to one broker. Every method may be called from any thread unless said otherwise."""

    name: ClassVar[str]
    """The adapter's name, also the URL scheme: "rabbitmq"."""

    Options: ClassVar[type[Any]]
    """A frozen dataclass of the adapter's own options. `from_url` fills it; unknown names are refused by the core."""

    capabilities: Capabilities
    """What this broker can do; final once `open` has returned, since it may depend on the broker's version."""

    surely_fits: ClassVar[int] = 0
    """A message with a body of so many bytes and nothing but id, timestamp and content type needs no `check`."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    @abstractmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        """The capabilities without a connection, a label each ("Kafka < 4.2"), for the README's table."""

    @abstractmethod
    def open(self) -> None:
        """Connects and learns the broker's version. Raises BrokerUnavailable or AuthenticationFailed within
        `options.connect_timeout` seconds (every adapter's options have it)."""

    @abstractmethod
    def declare(self, topology: Topology, create: bool) -> None:
        """Makes sure everything in `topology` exists: creates what is missing, or with `create=False` only looks.

        Idempotent. A subscription's copy begins when it is first declared. Raises DestinationNotFound when
        something is missing and `create` is False, TopologyError when what is there differs so that it would
        behave differently, UnsupportedCapability, ConfigurationError for a wrong `native` option of this adapter.
        """

    def check(self, message: Message, destination: Destination) -> None:
        """Raises MessageTooLarge or InvalidMessage when this broker could not take `message`. Called before each send.

        An adapter whose limit covers more than the body overrides it.
        """
        limit = self.capabilities.max_message_bytes
        if limit is not None and len(message.body) > limit:
            raise MessageTooLarge(
                f"publish to {destination.name!r}: the body is {len(message.body)} bytes, {self.name} takes {limit}; "
                f"nothing was sent: split it, or send a reference to where it is stored"
            )

    @abstractmethod
    def sender(self, options: ProducerOptions) -> Sender:
        """A new sender. The driver closes what is left open in `close`."""

    @abstractmethod
    def receiver(self, source: Source, options: ConsumerOptions) -> Receiver:
        """A new receiver, ready: messages published after this returns are seen by it. Raises DestinationNotFound."""

    @abstractmethod
    def depth(self, source: Source) -> int:
        """Messages waiting in the source, not counting those delivered where the broker tells them apart."""

    @abstractmethod
    def purge(self, source: Source) -> None:
        """Drops every waiting message of the source."""

    @abstractmethod
    def delete(self, topology: Topology) -> None:
        """Deletes everything in `topology` with its dead-letter and retry queues. Missing ones are no error."""

    @abstractmethod
    def ping(self) -> None:
        """Asks the broker for a sign of life. Raises BrokerUnavailable within `options.connect_timeout` seconds."""

    @property
    @abstractmethod
    def native(self) -> Any:
        """The client library's own object: a pika connection, a confluent-kafka AdminClient, a boto3 client."""

    @abstractmethod
    def close(self) -> None:
        """Closes senders and receivers that are still open and joins every thread. Bounded. Idempotent."""
