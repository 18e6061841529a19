"""What an adapter implements. Batch first and small; everything portable lives above it.

A driver is made by `connect`, from the adapter's own options dataclass, and is found by the entry point group
`messaging.adapters` under its URL scheme. Every error that leaves a driver is one of `messaging.errors`: a client
library's own exceptions are translated, and kept as `__cause__`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from messaging.capabilities import Capabilities
from messaging.concerns import Concern
from messaging.dead_letter import alive_again
from messaging.delivery import Delivery, Settler
from messaging.errors import MessageTooLarge, MessagingError, UnsupportedCapability
from messaging.message import Message, PlainValue, plain_message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.plan import Finding, Part
from messaging.topology import Destination, Source, Topology
from messaging.waits import UNTOLD, Waits

Done = Callable[[int, MessagingError | None], None]
"""Called once for each message of a `send`, with its index and None when confirmed; does not block.

From any thread, but the calls for one `send` never overlap."""

Replay = str | float | Mapping[int, int]
"""Where to replay from: "beginning", seconds since the epoch, or an offset a partition."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """How the messages of one `send` travel. `delay`: seconds before they may be delivered.

    only: the one subscription of the topic that gets them, whatever its pattern; never with a delay. Comes from a
    redrive, on every adapter that has topics.
    """

    destination: Destination
    delay: float = 0.0
    mandatory: bool = False
    only: Source | None = None


class Sender(ABC):
    """Sends messages and reports what became of each. Every method may be called from any thread."""

    waits: Waits = UNTOLD
    """Where it tells that what it was given waits, and why: `begin(reason)`, `end(reason)`, from any thread.

    For what the core cannot know: "buffer", "blocked", "throttled" (see `messaging.waits.Reason`). `on_wait` of the
    program may run in these calls, so no lock is held during them; who must order them by a lock calls `note` with it
    and `tell` without. A wait that is open when the producer has closed is ended by the core.
    """

    def report_waits(self, waits: Waits) -> None:
        """Called once by the core, before the first `send`. A sender that wraps another passes it on."""
        self.waits = waits

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

    def send_values(self, values: Sequence[PlainValue], timestamp: float, outgoing: Outgoing, done: Done) -> None:
        """As `send`, with messages that are nothing but a value.

        An adapter whose client takes a message in less time than it takes to make a `Message` overrides it.
        """
        self.send([plain_message(value, timestamp) for value in values], outgoing, done)

    def send_again(self, letters: Sequence[Delivery], outgoing: Outgoing, done: Done) -> None:
        """As `send`, with what dead letters were before they were: same id, key, type, headers and body.

        An adapter that can overrides it so that also what another program put there stays as it is, byte for byte.
        """
        self.send([alive_again(letter) for letter in letters], outgoing, done)

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

    def expired(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        """Those of `deliveries` that are not to be handed out, since their time to live has ended. now: time.time()."""
        return [d for d in deliveries if (ends := d.expires_at) is not None and ends <= now]

    def check_delay(self, delay: float) -> None:
        """Raises UnsupportedCapability for a delay of `nack`, seconds, that the broker cannot hold; `nack` does too."""
        return

    @abstractmethod
    def pause(self) -> None:
        """Take no further messages from the broker. Leases, heartbeats and group membership go on. Idempotent."""

    @abstractmethod
    def resume(self) -> None:
        """Undo `pause`. Idempotent."""

    @abstractmethod
    def lag(self) -> int:
        """How many messages of the source are not yet acknowledged, as exactly as the broker tells."""

    def now(self) -> float:
        """The clock of delays that are waited for in the consumer: seconds, never goes back. From any thread."""
        return time.monotonic()

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


class TransactionalReceiver(Receiver):
    """A receiver whose messages are settled in transactions, one at a time, together with what is sent in them.

    `begin`, `commit` and `abort` are called by the thread that calls `receive`. `ack` has no effect of its own, except
    that the delivery is settled by the coming commit too; `reject` sends the copy in the transaction; `nack` raises
    UnsupportedCapability.
    """

    sender: Sender
    """Sends in the open transaction. What is sent is seen once that is committed; `done` may be called before."""

    @abstractmethod
    def begin(self) -> None:
        """Makes ready for a transaction; the outcome of one that was left open is known afterwards.

        Raises BrokerUnavailable: then call it again.
        """

    @abstractmethod
    def commit(self, deliveries: Sequence[Delivery], timeout: float) -> None:
        """Settles `deliveries` and shows what was sent: both, or neither.

        Raises TransactionAborted when neither happened: call `abort`. Raises BrokerUnavailable when the outcome is not
        known within `timeout` seconds: the next `begin` finds out, and deliveries that were not settled come again.
        """

    @abstractmethod
    def abort(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Takes back what was sent. Returns those of `deliveries` that are still this consumer's, unsettled.

        Raises nothing.
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

    export_formats: ClassVar[Sequence[str]] = ()
    """What `export` can write: "terraform". The names are shared by the adapters."""

    depth_counts_held: ClassVar[bool] = False
    """Whether `depth` counts what is handed out and unsettled; then it does not change when that is given back."""

    in_process: ClassVar[bool] = False
    """Whether the broker lives in this process, and what it stores ends with it."""

    def __init__(self, options: Any) -> None:
        """Keeps the options, an instance of `Options`. Connects nothing: `open` or `assume` comes next, or `close`."""
        self.options = options

    @property
    def version(self) -> str:
        """The broker and its version as it tells it itself, after `open`: "RabbitMQ 4.0.5". Empty when it tells none.

        May ask the broker, bounded by `options.connect_timeout`; never raises.
        """
        return ""

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

        That is each destination, its sources (`sources_of`), and the dead-letter queue of each (`source.dead_letter`).
        Idempotent. A subscription's copy begins when it is first declared. Raises DestinationNotFound when
        something is missing and `create` is False, TopologyError when what is there differs so that it would
        behave differently, UnsupportedCapability, ConfigurationError for a wrong `native` option of this adapter.
        """

    def assume(self, version: str | None) -> str:
        """Instead of `open`: makes `plan` and `export` work without a connection, for a broker of that version.

        None: the newest version known. Returns what is assumed, in words. Raises ConfigurationError for a version that
        is not one, UnsupportedCapability when this adapter needs a connection to plan.
        """
        raise UnsupportedCapability(f"{self.name}: this adapter cannot plan without a connection")

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        """Exactly what `declare` would make, in that order, and what a retry after each of `delays` seconds would.

        Asks the broker nothing; works after `open` or `assume`. Raises what `declare` raises for a topology that this
        broker cannot hold. `declare` and `plan` should share what computes the settings.
        """
        raise UnsupportedCapability(f"{self.name}: this adapter cannot tell what a topology is made of")

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        """Looks for each part on the broker, in the same order. Creates and changes nothing.

        What this broker does not tell is "unknown", with the reason as the way out. Raises BrokerUnavailable.
        """
        raise UnsupportedCapability(f"{self.name}: this adapter cannot compare a topology with the broker")

    def leftovers(self, topology: Topology, delays: Sequence[float] | None) -> list[Part]:
        """What earlier retries of `topology` use, and retries after `delays` seconds do not.

        delays: None leaves out what can only be told by them. The parts' settings have "messages", how many wait there.
        Nothing, on a broker where retries have nothing of their own.
        """
        return []

    def concerns(self, topology: Topology, delays: Sequence[float] = ()) -> list[Concern]:
        """What the settings of the broker, and of what is there of `topology`, do not uphold of the promise.

        In words for who runs the broker; `delays`: seconds after which retries come. Changes nothing, and stores no
        message. What this user may not see, or an optional interface does not answer, is a concern with seen=False
        and never an error. Raises BrokerUnavailable. Nothing, unless an adapter has something to tell.
        """
        return []

    def export(self, parts: Sequence[Part], format: str) -> str:
        """What makes `parts` without this library, as text in one of `export_formats`. Works after `assume`."""
        raise UnsupportedCapability(f"{self.name}: this adapter exports nothing")

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

    def transactional_receiver(self, source: Source, options: ConsumerOptions) -> TransactionalReceiver:
        """As `receiver`, with transactions. Only called when `capabilities.transactions`.

        Raises UnsupportedCapability for a source that cannot have them.
        """
        raise NotImplementedError

    @abstractmethod
    def depth(self, source: Source) -> int:
        """Messages waiting in the source, not counting those delivered where the broker tells them apart."""

    @abstractmethod
    def purge(self, source: Source) -> None:
        """Drops every waiting message of the source."""

    @abstractmethod
    def delete(self, topology: Topology) -> None:
        """Deletes all in `topology` with the dead-letter and retry queues it declares. Missing ones are no error.

        A destination may be one dead-letter queue, by its name: then that alone.
        """

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
