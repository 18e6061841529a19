"""What the interface promises, as a few dictionaries. Knows no broker, no clock and no thread: times are arguments.

A `Copy` is one message in one source (a queue, a subscription, a dead-letter queue). It waits, is held by a consumer,
or is gone. What a broker may do in several ways is a set of outcomes that are let pass; everything else is `Broken`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from messaging.dead_letter import ATTEMPTS, HEADERS, REASON, SOURCE

_CLOCKS_DIFFER = 0.02
"""Seconds by which the clocks of a broker and of this process may run apart during a delay."""


class Broken(AssertionError):
    """The broker did what the interface rules out. The text says what."""


class State(Enum):
    WAITING = "waiting"
    HELD = "held"
    GONE = "gone"


@dataclass(frozen=True)
class Sent:
    """A message as it was published."""

    id: str
    body: bytes
    key: str | None = None
    type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A message as it was delivered."""

    sent: Sent
    attempt: int


@dataclass(frozen=True)
class Promises:
    """What a broker promises for one source.

    exact: attempts and counts are to the one, time is the model's: the memory broker. kept: attempts and delays are
    the broker's, so they outlive the consumer. one_by_one: what is settled stays settled, whatever before it is not.
    """

    exact: bool = True
    ordered: bool = False
    kept: bool = True
    one_by_one: bool = True


@dataclass
class Copy:
    """due: when it may come, seconds. attempts: of its last delivery. place: its turn among those of its key.

    disturbed: a broker may have counted a delivery that nobody saw. forgotten: attempts may begin at 1 again. hasty: it
    need not wait for `due`.
    delayed: it was put off, so it may be where a purge does not reach. may_vanish: a purge may have dropped it.
    may_return: it is settled above one that is not, where a broker has one position.
    """

    sent: Sent
    place: int
    due: float
    story: Mapping[str, str] = field(default_factory=dict)
    state: State = State.WAITING
    attempts: int = 0
    disturbed: bool = False
    forgotten: bool = False
    hasty: bool = False
    delayed: bool = False
    may_vanish: bool = False
    may_return: bool = False

    @property
    def alive(self) -> bool:
        return self.state is not State.GONE


@dataclass
class ModelConsumer:
    """pending: nacked inside the consumer or given up to the broker, not due yet."""

    source: ModelSource
    prefetch: int
    at_most_once: bool = False
    lease: float | None = None
    paused: bool = False
    closed: bool = False


@dataclass
class ModelDelivery:
    """until: when its lease ends, seconds. live: it still is the current delivery of its copy."""

    consumer: ModelConsumer
    copy: Copy
    attempt: int
    until: float
    settled: bool = False
    live: bool = True


@dataclass
class ModelSource:
    """One queue or subscription. `dead_letter`: where rejected copies go; None: nowhere."""

    name: str
    promises: Promises
    dead_letter: ModelSource | None = None
    copies: list[Copy] = field(default_factory=list)
    consumers: list[ModelConsumer] = field(default_factory=list)
    deliveries: list[ModelDelivery] = field(default_factory=list)

    def publish(self, sent: Sent, due: float, story: Mapping[str, str] | None = None, delayed: bool = False) -> None:
        self.copies.append(Copy(sent, len(self.copies), due, story or {}, delayed=delayed))

    @property
    def open(self) -> list[ModelConsumer]:
        return [consumer for consumer in self.consumers if not consumer.closed]

    def waiting(self) -> list[Copy]:
        """Those that have to come some time."""
        return [copy for copy in self.copies if copy.state is State.WAITING and not copy.may_vanish]

    def subscribe(self, prefetch: int, at_most_once: bool = False, lease: float | None = None) -> ModelConsumer:
        consumer = ModelConsumer(self, prefetch, at_most_once, lease)
        self.consumers.append(consumer)
        return consumer

    def held_by(self, consumer: ModelConsumer) -> list[ModelDelivery]:
        return [d for d in self.deliveries if d.consumer is consumer and d.live]

    def pass_time(self, now: float) -> None:
        """Leases that have run out by now: those copies wait again."""
        for delivery in self.deliveries:
            if delivery.live and delivery.until <= now:
                delivery.live = False
                self._back(delivery.copy, now)

    def close(self, consumer: ModelConsumer, now: float) -> None:
        """What it holds comes back; what it settled does not, but where there is one position."""
        if consumer.closed:
            return
        consumer.closed = True
        for delivery in self.held_by(consumer):
            delivery.live = False
            self._back(delivery.copy, now)
        unsettled = [copy.place for copy in self.copies if copy.alive]
        for copy in self.copies:
            copy.disturbed = True
            if not self.promises.kept:
                copy.forgotten = True
                copy.hasty = copy.attempts > 0
            if not self.promises.one_by_one and unsettled and copy.place > min(unsettled):
                copy.may_return = copy.may_return or not copy.alive

    def pause(self, consumer: ModelConsumer, paused: bool) -> None:
        consumer.paused = paused
        if not self.promises.exact:
            for copy in self.copies:
                copy.disturbed = True

    def must_deliver(self, consumer: ModelConsumer, now: float) -> bool:
        """Whether a receive may not come back with nothing."""
        due = [copy for copy in self.waiting() if copy.due <= now]
        if not due or consumer.paused or consumer.closed:
            return False
        held = len(self.held_by(consumer))
        later = sum(1 for copy in self.copies if copy.state is State.WAITING and copy.due > now)
        if self.promises.exact and not self.promises.ordered:
            return held < consumer.prefetch  # buffers nothing, and keeps nothing that waits for its time
        alone = self.open == [consumer]
        if self.promises.ordered:  # what it has buffered may all be behind what is held or put off
            return alone and not held and not later
        return alone and held + later < consumer.prefetch

    def receive(self, consumer: ModelConsumer, seen: Sequence[Seen], most: int, now: float) -> list[ModelDelivery]:
        """Raises Broken for a delivery that should not be."""
        if seen and consumer.paused:
            raise Broken(f"{seen[0].sent.id} came to a paused consumer of {self.name}")
        if len(seen) > most:
            raise Broken(f"{len(seen)} messages came where at most {most} were asked for")
        return [self._deliver(consumer, one, now) for one in seen]

    def _deliver(self, consumer: ModelConsumer, seen: Seen, now: float) -> ModelDelivery:
        copy = self._copy_of(seen, now)
        if not copy.hasty and copy.due > now + (0.0 if self.promises.exact else _CLOCKS_DIFFER):
            raise Broken(f"{seen.sent.id} came to {self.name} {copy.due - now:.3f} s early")
        self._check_content(copy, seen)
        self._check_attempt(copy, seen.attempt)
        if self.promises.ordered:
            self._check_order(copy)
        delivery = ModelDelivery(consumer, copy, seen.attempt, float("inf"))
        if consumer.lease is not None:
            delivery.until = now + consumer.lease
        copy.attempts, copy.state = seen.attempt, State.HELD
        copy.disturbed = copy.forgotten = copy.hasty = copy.may_vanish = copy.may_return = False
        self.deliveries.append(delivery)
        if consumer.at_most_once:
            delivery.settled, delivery.live, copy.state = True, False, State.GONE
        elif (held := len(self.held_by(consumer))) > consumer.prefetch:
            raise Broken(f"{held} messages of {self.name} are in flight with prefetch={consumer.prefetch}")
        return delivery

    def _copy_of(self, seen: Seen, now: float) -> Copy:
        its = [copy for copy in self.copies if copy.sent.id == seen.sent.id]
        if not its:
            raise Broken(f"{seen.sent.id} came to {self.name}, where it was never put")
        could = [copy for copy in its if copy.state is State.WAITING or copy.may_return]
        if not could:
            state = "is in flight there" if its[-1].state is State.HELD else "was settled or purged there"
            raise Broken(f"{seen.sent.id} came to {self.name} again, though it {state}")
        return min(
            could, key=lambda copy: (copy.state is not State.WAITING, copy.due > now, copy.may_vanish, copy.place)
        )

    def _check_content(self, copy: Copy, seen: Seen) -> None:
        for name in ("body", "key", "type"):
            if getattr(copy.sent, name) != getattr(seen.sent, name):
                raise Broken(
                    f"{seen.sent.id} came to {self.name} with {name} {getattr(seen.sent, name)!r}, "
                    f"not {getattr(copy.sent, name)!r}"
                )
        plain = {name: value for name, value in seen.sent.headers.items() if name not in HEADERS}
        if plain != dict(copy.sent.headers):
            raise Broken(f"{seen.sent.id} came to {self.name} with headers {plain}, not {dict(copy.sent.headers)}")
        told = {name: value for name, value in seen.sent.headers.items() if name in (SOURCE, REASON, ATTEMPTS)}
        if told != copy.story:
            raise Broken(f"{seen.sent.id} came to {self.name} telling {told}, not {copy.story}")

    def _check_attempt(self, copy: Copy, attempt: int) -> None:
        least = 1 if copy.forgotten else copy.attempts + 1
        most = None if copy.forgotten or (copy.disturbed and not self.promises.exact) else least
        if attempt < least or (most is not None and attempt > most):
            wanted = f"{least}" if most is not None else f"{least} or more"
            raise Broken(f"{copy.sent.id} came to {self.name} as attempt {attempt}, not {wanted}")

    def _check_order(self, copy: Copy) -> None:
        for other in self.copies:
            if other is copy or other.sent.key != copy.sent.key:
                continue
            if other.state is State.HELD:
                raise Broken(f"{copy.sent.id} came while {other.sent.id} of its key is in flight")
            if other.state is State.WAITING and other.place < copy.place and not other.may_vanish:
                raise Broken(f"{copy.sent.id} overtook {other.sent.id} of its key")

    def ack(self, delivery: ModelDelivery) -> None:
        if self._settle(delivery):
            delivery.copy.state = State.GONE

    def nack(self, delivery: ModelDelivery, due: float, delayed: bool) -> None:
        if self._settle(delivery):
            delivery.copy.delayed = delivery.copy.delayed or delayed
            self._back(delivery.copy, due)

    def reject(self, delivery: ModelDelivery, reason: str, now: float) -> None:
        if self._settle(delivery):
            delivery.copy.state = State.GONE
            if self.dead_letter is not None:
                story = {SOURCE: self.name, REASON: reason, ATTEMPTS: str(delivery.attempt)}
                self.dead_letter.publish(delivery.copy.sent, now, story)

    def extend(self, delivery: ModelDelivery, until: float) -> None:
        if delivery.live and delivery.consumer.lease is not None:
            delivery.until = until

    def purge(self) -> None:
        for copy in self.copies:
            if copy.state is State.WAITING:
                # A consumer of an ordered source reads ahead into lanes, and elsewhere what is put off may be apart.
                if self.promises.exact and not (self.promises.ordered and self.open):
                    copy.state = State.GONE
                elif self.promises.exact or copy.delayed or copy.attempts:
                    copy.may_vanish = True
                else:
                    copy.state = State.GONE

    def redrive(self, now: float) -> int:
        """Moves what is in the dead-letter queue back; returns how many."""
        assert self.dead_letter is not None
        letters = self.dead_letter.waiting()
        for letter in letters:
            letter.state = State.GONE
            self.publish(letter.sent, now)
        return len(letters)

    def depth(self) -> int:
        return sum(1 for copy in self.copies if copy.state is State.WAITING)

    def lag(self) -> int:
        return sum(1 for copy in self.copies if copy.alive)

    @staticmethod
    def _settle(delivery: ModelDelivery) -> bool:
        """Whether it takes effect."""
        took = delivery.live and not delivery.settled
        delivery.settled, delivery.live = True, False
        return took

    @staticmethod
    def _back(copy: Copy, due: float) -> None:
        copy.state, copy.due = State.WAITING, due
