"""What a clause works with: a broker, unique names, a ledger, and cleaning up behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from messaging import Broker, Capabilities, Consumer, Delivery, MessagingError, Queue, SettleFailed, Subscription, Topic
from messaging.topology import Destination, Source
from messaging_contract.clause import Kind
from messaging_contract.conditions import Congestion, Expiring
from messaging_contract.harness import Harness, Link
from messaging_contract.ledger import Ledger

if TYPE_CHECKING:
    from messaging_contract.sql.scene import Scene


class Bench:
    """Made for one run of one clause on one broker, and closed after it.

    May be used by the threads a clause starts: `_lock` guards what is to be closed and deleted.
    """

    def __init__(self, harness: Harness, kind: Kind = "queue") -> None:
        self.harness = harness
        self.kind = kind
        self.test_id = uuid4().hex[:12]
        self._stack = ExitStack()
        self._brokers: list[Broker] = []
        self._names = 0
        self._lock = Lock()
        self.settlements_may_fail = False
        """The clause breaks the connection: a settlement may then fail, and the consumer is told (SettleFailed)."""

    @property
    def broker(self) -> Broker:
        """A connection shared with other clauses. Not to be closed or broken."""
        return self.harness.broker

    @property
    def patience(self) -> float:
        """Seconds to wait for something that should happen, before the clause fails."""
        return self.harness.patience

    def seconds(self, usual: float) -> float:
        """A delay, lease or time to live: `usual` seconds, or fewer where the broker keeps time well."""
        return usual * self.harness.pace

    @property
    def able(self) -> Capabilities:
        return self.harness.capabilities

    def connect(self, **options: Any) -> Broker:
        """A connection of its own."""
        return self.adopt(self.harness.connect(**options))

    def adopt(self, broker: Broker) -> Broker:
        """Closes `broker` at the end of the clause, and deletes what it declared."""
        with self._lock:
            self._brokers.append(broker)
            self._stack.callback(broker.close)
        return broker

    def link(self) -> Link:
        """A breakable connection (control "link")."""
        assert self.harness.link is not None
        self.settlements_may_fail = True
        link = self.harness.link()
        with self._lock:
            self._stack.callback(link.close)
            self._stack.callback(link.resume)
        return link

    def expiring(self) -> Expiring:
        """A connection whose credentials can expire (control "expiring")."""
        assert self.harness.expiring is not None
        self.settlements_may_fail = True
        expiring = self.harness.expiring()
        with self._lock:
            self._stack.callback(expiring.close)
            self._stack.callback(expiring.renew)
        return expiring

    def congestion(self) -> Congestion:
        """A connection on which publishes have to wait (control "congested")."""
        assert self.harness.congested is not None
        congestion = self.harness.congested()
        with self._lock:
            self._stack.callback(congestion.close)
            self._stack.callback(congestion.end)
        return congestion

    def scene(self) -> Scene:
        """Tables in the database that nobody else has (control "database"), dropped at the end of the clause."""
        assert self.harness.database is not None
        scene = self.harness.database.scene(self)
        with self._lock:
            self._stack.callback(scene.close)
        return scene

    def name(self) -> str:
        """A name nobody else uses."""
        with self._lock:
            self._names += 1
            return f"mc-{self.test_id}-{self._names}"

    def queue(self, broker: Broker | None = None, **fields: Any) -> Queue:
        """A new queue, declared."""
        queue = Queue(self.name(), **fields)
        (broker or self.broker).declare(queue)
        return queue

    def topic(self, *groups: Subscription | str, broker: Broker | None = None, **fields: Any) -> Topic:
        """A new topic, declared with these subscriptions."""
        topic = Topic(self.name(), *groups, **fields)
        (broker or self.broker).declare(topic)
        return topic

    def source(self, **fields: Any) -> Source:
        """A new queue, or a new topic with a subscription, whichever this run of the clause is on; declared."""
        if self.kind == "queue":
            return Source(self.queue(**fields))
        dead_letter = fields.pop("dead_letter", True)
        subscription = Subscription("g", dead_letter=dead_letter)
        return Source(self.topic(subscription, **fields), subscription)

    def consume(
        self,
        source: Source | str | Destination,
        group: str | None = None,
        *,
        broker: Broker | None = None,
        **options: Any,
    ) -> Consumer:
        """A consumer, closed at the end of the clause."""
        destination, group = _parts(source, group)
        consumer = (broker or self.broker).subscribe(destination, group, **options)
        with self._lock:
            self._stack.callback(consumer.close)
        return consumer

    def consumers(self, source: Source, count: int, **options: Any) -> list[Consumer]:
        """Several consumers of one source, once each has its share of it."""
        found = [self.consume(source, **options) for _ in range(count)]
        joined = self.harness.joined
        if joined is not None:
            self.eventually(lambda: joined(source, count), f"{count} consumers to have their shares of {source}")
        return found

    def dead_letters(self, source: Source | str | Destination, group: str | None = None) -> Consumer:
        """A consumer of a dead-letter queue, closed at the end of the clause."""
        destination, group = _parts(source, group)
        consumer = self.broker.dead_letters(destination, group)
        with self._lock:
            self._stack.callback(consumer.close)
        return consumer

    def depth(self, source: Source) -> int:
        """Messages waiting, as the broker tells."""
        return self.broker.depth(*_parts(source, None))

    def settled(self, consumer: Consumer) -> None:
        """Waits until the broker holds nothing of the source, handed out and unsettled messages included."""
        self.eventually(lambda: self.depth(consumer.source) == 0, f"a depth of 0 of {consumer.source}")
        if self.able.lag:  # `depth` leaves out what was handed out, where the broker tells that apart
            self.eventually(lambda: consumer.lag() == 0, f"a lag of 0 of {consumer.source}")

    def dead_letter_depth(self, source: Source) -> int:
        """Messages in the dead-letter queue, as the broker tells."""
        return self.broker.dead_letter_depth(*_parts(source, None))

    def redrive(self, source: Source, count: int) -> None:
        """Moves `count` dead letters back. A broker may not show all of them at once."""
        letters = self.broker.dead_letter_queue(*_parts(source, None))
        moved = 0

        def all_moved() -> bool:
            nonlocal moved
            moved += letters.redrive().moved
            return moved >= count

        self.eventually(all_moved, f"{count} dead letters of {source} to be redriven")

    def ledger(self, name: str = "m") -> Ledger:
        """A ledger for the messages of one destination."""
        return Ledger(self.test_id, name)

    def volume(self, most: int) -> int:
        """`most` messages, or fewer where the broker is slow."""
        return min(most, self.harness.volume)

    def receive(self, consumer: Consumer, most: int, timeout: float) -> list[Delivery]:
        """As `consumer.receive`. In a clause that breaks the connection, being told of a failed settlement is right."""
        try:
            return consumer.receive(most, timeout)
        except SettleFailed:
            if not self.settlements_may_fail:
                raise
            return []

    def take(
        self,
        consumer: Consumer,
        ledger: Ledger,
        count: int | None = None,
        *,
        ack: bool = False,
        only: Iterable[str] | None = None,
        timeout: float | None = None,
        batch: int = 100,
    ) -> list[Delivery]:
        """Receives `count` messages, or until none of those published (`only`: of these) is missing.

        Returns what came by the deadline; asserts that it was enough when `count` is given, and leaves it to the
        ledger otherwise. ack: settles them.
        """
        due = None if only is None else set(only)
        limit = self.patience if timeout is None else timeout
        deadline = time.monotonic() + limit
        taken: list[Delivery] = []
        while time.monotonic() < deadline:
            if count is None:
                if not (ledger.missing if due is None else ledger.missing & due):
                    break
            elif len(taken) >= count:
                break
            most = batch if count is None else min(batch, count - len(taken))
            own = ledger.receive(self.receive(consumer, most, 0.5))
            taken += own
            if ack and own:
                consumer.ack(own)
                ledger.settle(own)
        if count is not None:
            assert len(taken) == count, f"{len(taken)} of {count} messages of {consumer.source} within {limit:g} s"
        return taken

    def one(self, consumer: Consumer, ledger: Ledger, timeout: float | None = None) -> Delivery:
        """Receives one message, unsettled."""
        return self.take(consumer, ledger, 1, timeout=timeout)[0]

    def quiet(self, consumer: Consumer, ledger: Ledger, seconds: float | None = None) -> None:
        """Asserts that no message of the clause comes for `seconds` (default: what proves absence here)."""
        deadline = time.monotonic() + (self.harness.quiet if seconds is None else seconds)
        while (left := deadline - time.monotonic()) > 0:
            own = [d for d in self.receive(consumer, 100, left) if ledger.owns(d)]
            assert not own, f"{consumer.source} delivered {own} where nothing was to come"

    def eventually(
        self, condition: Callable[[], bool], what: str | Callable[[], str], timeout: float | None = None
    ) -> None:
        """Waits until `condition` holds; fails with `what`, or what it returns then, at the deadline."""
        limit = self.patience if timeout is None else timeout
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() >= deadline:
                raise AssertionError(f"not within {limit:g} s: {what if isinstance(what, str) else what()}")
            time.sleep(0.02)

    def close(self) -> None:
        """Closes what the clause opened and deletes what it declared. Raises what closing raised, after the rest."""
        try:
            self._stack.close()
        finally:
            self._delete()

    def _delete(self) -> None:
        prefix = f"mc-{self.test_id}-"
        broker = self.harness.broker
        topologies = [b.topology for b in (broker, *self._brokers)]
        mine = dict.fromkeys(d for topology in topologies for d in topology if d.name.startswith(prefix))
        for destination in mine:
            try:
                broker.delete(destination)
            except MessagingError:
                self.harness.renew()
                self.harness.broker.delete(destination)


def _parts(source: Source | str | Destination, group: str | None) -> tuple[str | Destination, str | None]:
    if isinstance(source, Source):
        return source.destination, source.group
    return source, group
