"""Consuming: batches or iteration, each delivery settled by whoever handled it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from threading import Event, Lock, RLock, Thread
from types import TracebackType
from typing import Self

from messaging.capabilities import Capabilities
from messaging.delivery import Delivery
from messaging.driver import Receiver, Replay, TransactionalReceiver
from messaging.errors import Closed, ConfigurationError
from messaging.options import ConsumerOptions
from messaging.producer import Producer
from messaging.topology import Source
from messaging.transaction import Transaction

_TURN = 0.5
"""Seconds a blocked receive waits in one go, so that pause and close from another thread are noticed."""


class Consumer:
    """Reads one queue or subscription.

    `receive`, iteration and `replay` may be called from any thread; concurrent calls take turns (`_turn` guards the
    receiver's reading side). `pause`, `resume`, `lag`, `close` and settling may be called at any time, also while a
    receive blocks: `close` ends it.
    """

    def __init__(
        self,
        receiver: Receiver,
        source: Source,
        capabilities: Capabilities,
        broker: str,
        options: ConsumerOptions,
        producer: Producer | None = None,
    ) -> None:
        """producer: of the receiver's transactions, when it has them."""
        self.source = source
        self.options = options
        self._receiver = receiver
        self._capabilities = capabilities
        self._broker = broker
        self._turn = RLock()
        self._left: deque[Delivery] = deque()
        self._holders: set[int] = set()
        self._holding = Lock()
        """Guards `_holders`, and that the receiver is paused in the same order in which they change."""
        self._resumed = Event()
        self._resumed.set()
        self._closed = Event()
        self.on_close: Callable[[Consumer], None] = lambda _consumer: None
        self._transact: Callable[[], Transaction] | None = None
        if isinstance(receiver, TransactionalReceiver) and producer is not None:
            self._transact = partial(Transaction, receiver, producer, self.take, self._put_back, Lock())

    def receive(self, max_messages: int = 100, timeout: float = 1.0) -> list[Delivery]:
        """Returns 1 to `max_messages` deliveries, as soon as there is one, or none after `timeout` seconds.

        With `delivery="at-most-once"` all of them are settled when this returns: ask for as many as you handle at once.

        Raises Closed when the consumer is or gets closed, DestinationNotFound or AuthenticationFailed when the source
        cannot be read any more, SettleFailed when an earlier settlement failed. While the connection is down it
        returns empty lists: the adapter reconnects behind it.
        """
        if self._transact is not None:
            raise ConfigurationError(
                f"receive from {self.source}: with delivery='exactly-once' messages are received in a transaction: "
                "with consumer.transaction() as transaction: transaction.receive()"
            )
        deliveries = self.take(max_messages, timeout)
        self.begin(deliveries)
        return deliveries

    def transaction(self) -> Transaction:
        """A transaction, to be used with `with`: only with `delivery="exactly-once"`, and one at a time.

        Raises ConfigurationError, Closed; entering it BrokerUnavailable, and ConfigurationError while another is
        open; leaving it TransactionAborted (nothing happened, and what was received comes again) and BrokerUnavailable
        (it is not known yet; what was not settled comes again).
        """
        self._open("transaction")
        if self._transact is None:
            raise ConfigurationError(
                f"transaction on {self.source}: it was subscribed with delivery={self.options.delivery!r}; "
                "use delivery='exactly-once'"
            )
        return self._transact()

    def take(self, max_messages: int, timeout: float) -> list[Delivery]:
        """As `receive`, for who calls `begin` before handling each: a worker, which holds some back."""
        if max_messages < 1:
            raise ValueError(f"max_messages must be at least 1, not {max_messages!r}")
        deadline = time.monotonic() + timeout
        while True:
            self._open("receive")
            remaining = max(deadline - time.monotonic(), 0.0)
            turn = min(remaining, _TURN)
            deliveries = self._take(max_messages, turn) if self._resumed.wait(turn) else []
            if deliveries or remaining <= 0:
                return deliveries

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """With `delivery="at-most-once"`, settles what is about to be handled.

        Raises Closed, SettleFailed, BrokerUnavailable.
        """
        if self.options.at_most_once and deliveries:
            self.ack(deliveries)
            self._receiver.flush(10.0)

    def check_delay(self, delay: float) -> None:
        """Raises UnsupportedCapability for a retry's delay, seconds, that `nack` would refuse. Asks no broker."""
        # In a transaction the worker itself waits; at most once nothing is tried again.
        if delay > 0 and self._transact is None and not self.options.at_most_once:
            self._capabilities.require("nack_delay", self._broker)
            self._receiver.check_delay(delay)

    @property
    def batch(self) -> int:
        """How many to receive at a time: with `delivery="at-most-once"` one, since what is received is settled."""
        return 1 if self.options.at_most_once else min(self.options.prefetch, 100)

    def _take(self, max_messages: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        if not self._turn.acquire(timeout=timeout):
            return []
        try:
            if self._closed.is_set():
                raise Closed(f"receive from {self.source}: the consumer is closed")
            if not self._resumed.is_set():
                return []
            deliveries = self._take_left(max_messages)
            if not deliveries:
                deliveries = self._receiver.receive(max_messages, max(deadline - time.monotonic(), 0.0))
            if self._closed.is_set():
                raise Closed(f"receive from {self.source}: the consumer was closed meanwhile")
            fresh = self._fresh(deliveries)
            if not self._resumed.is_set():  # paused meanwhile: after pause() has returned, nothing is handed out
                self._put_back(fresh)
                return []
            return fresh
        finally:
            self._turn.release()

    def _take_left(self, most: int) -> list[Delivery]:
        """What was taken from the broker before and not handed out. No lock: a deque pops atomically."""
        taken: list[Delivery] = []
        with suppress(IndexError):
            while len(taken) < most:
                taken.append(self._left.popleft())
        return taken

    def _put_back(self, deliveries: Sequence[Delivery]) -> None:
        """The next to be handed out, in this order."""
        self._left.extendleft(reversed(deliveries))

    def _fresh(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Those whose time to live has not ended. The others are done with."""
        as_type = self.options.as_type
        if as_type is not None:
            for delivery in deliveries:
                delivery.as_type = as_type
        expired = self._receiver.expired(deliveries, time.time())
        if not expired:
            return deliveries
        self.ack(expired)
        return [delivery for delivery in deliveries if not delivery._settled]

    def iterate(self, timeout: float | None = None) -> Iterator[Delivery]:
        """Yields deliveries until the consumer is closed or, when given, nothing came for `timeout` seconds.

        When the loop stops early, what was taken and not yet yielded is kept for the next receive.
        """
        while True:
            try:
                deliveries = self.receive(self.batch, _TURN if timeout is None else timeout)
            except Closed:
                return
            if not deliveries and timeout is not None:
                return
            # Kept for whoever receives next: a loop may be left early, and a pause or replay comes between two of them.
            self._put_back(deliveries)
            while self._resumed.is_set() and not self._closed.is_set() and (one := self._take_left(1)):
                yield one[0]

    def __iter__(self) -> Iterator[Delivery]:
        return self.iterate()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acks several deliveries at once. Those already settled are left alone. Raises Closed."""
        pending = [delivery for delivery in deliveries if not delivery._settled]
        while pending:
            settler = pending[0].settler
            its = [delivery for delivery in pending if delivery.settler is settler]
            if len(its) == len(pending):
                pending = []
            else:
                pending = [delivery for delivery in pending if delivery.settler is not settler]
            settler.ack(its)
            for delivery in its:
                delivery._settled = True

    def pause(self) -> None:
        """Stops taking messages. What was delivered may still be settled, and leases are kept. Idempotent.

        Raises Closed.
        """
        self.hold(self)

    def resume(self) -> None:
        """Goes on after `pause`, unless a `PressureGate` holds it too. Idempotent. Raises Closed."""
        self.let_go(self)

    def hold(self, holder: object) -> None:
        """Pauses until every holder has let go. Idempotent for each. Raises Closed."""
        self._open("pause")
        with self._holding:
            self._holders.add(id(holder))
            self._resumed.clear()
            if self._closed.is_set():  # meanwhile: whoever waits must learn it
                self._resumed.set()
            self._receiver.pause()

    def let_go(self, holder: object) -> None:
        """Undoes `hold` of this holder. Idempotent. Raises Closed."""
        self._open("resume")
        with self._holding:
            self._holders.discard(id(holder))
            if not self._holders:
                self._receiver.resume()
                self._resumed.set()

    @property
    def paused(self) -> bool:
        return not self._resumed.is_set()

    def lag(self) -> int:
        """Messages published to the source and not yet acknowledged, as exactly as the broker tells."""
        self._open("lag")
        self._capabilities.require("lag", self._broker)
        return self._receiver.lag()

    def replay(self, since: Replay | datetime) -> None:
        """Goes back to "beginning", to a time (datetime, or seconds since the epoch) or to an offset a partition.

        Deliveries not yet settled become stale. Raises UnsupportedCapability where the broker keeps no history.
        """
        self._capabilities.require("replay", self._broker)
        if isinstance(since, str) and since != "beginning":
            raise ValueError(f"replay since {since!r}: use 'beginning', a time, or offsets")
        with self._turn:
            self._open("replay")
            self._left.clear()
            self._receiver.replay(since.timestamp() if isinstance(since, datetime) else since)

    def flush(self, timeout: float = 10.0) -> None:
        """Waits until the broker carried out every settlement so far. Raises SettleFailed, BrokerUnavailable."""
        self._open("flush")
        self._receiver.flush(timeout)

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        """Carries out the settlements so far and gives the rest back to the broker. Bounded, idempotent."""
        if not self._closed.is_set():
            self._closed.set()
            self._resumed.set()
            try:
                self._receiver.close()
            finally:
                self.on_close(self)

    def abandon(self) -> None:
        """In a forked child: nothing of this works here, and a lock may be held by a thread that does not exist."""
        self._turn, self._holding = RLock(), Lock()
        self._closed, self._resumed = Event(), Event()
        self._closed.set()
        self._resumed.set()
        for name in ("ack", "nack", "reject", "extend"):  # its deliveries settle through the receiver
            setattr(self._receiver, name, _abandoned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, what: str) -> None:
        if self._closed.is_set():
            raise Closed(f"{what} of {self.source}: the consumer is closed")


def close_together(consumers: Sequence[Consumer]) -> None:
    """Each takes a moment to say goodbye, so all say it at once. Raises one of the errors, after all are closed."""
    errors: list[BaseException] = []

    def close(consumer: Consumer) -> None:
        try:
            consumer.close()
        except BaseException as error:
            errors.append(error)

    threads = []
    for consumer in consumers[1:]:
        thread = Thread(target=close, args=(consumer,), name="messaging-close")
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, and starts none
            close(consumer)
        else:
            threads.append(thread)
    for consumer in consumers[:1]:
        close(consumer)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _abandoned(*_args: object) -> None:
    raise Closed("this delivery was received before the fork: only the parent process can settle it")
