"""One soak on one broker: starts the traffic and the faults, waits, drains, and gives the account."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol
from uuid import uuid4

from messaging import Broker, Queue, Topic
from messaging.errors import MessagingError, SettleFailed
from messaging.topology import Destination, Source
from messaging_contract.harness import Harness
from messaging_contract.soak.accounts import Balance, Meter, Published, Received
from messaging_contract.soak.faults import Happened, Injector
from messaging_contract.soak.schedule import Fault, schedule
from messaging_contract.soak.traffic import ChildMember, Errors, Member, Publisher, join, number_of

_PRODUCERS = 2
"""Of each destination: one that publishes batches, one that publishes one by one."""
_MEMBERS = 2
"""Of each source."""
_KEYS = 240
_LEASE = 10.0
_TICK = 0.5
_JOIN = 90.0
"""Seconds that a thread has to end: the longest deadline of what it may be in, and some more."""
_QUIET = 2.0
"""Seconds without a delivery, once all are there, after which nothing more is expected."""


@dataclass(frozen=True)
class Plan:
    """How long: `seconds`, or until `messages` are confirmed. kinds: of faults. drain: seconds without any progress
    after which what is missing is lost.
    """

    seed: int
    kinds: tuple[str, ...]
    seconds: float | None = None
    messages: int | None = None
    drain: float = 90.0

    def schedule(self) -> Iterator[Fault]:
        """The faults, in order; those of the time, or endless when it ends by messages."""
        for fault in schedule(self.seed, self.kinds):
            if self.seconds is not None and fault.at >= self.seconds:
                return
            yield fault


@dataclass(frozen=True)
class Sample:
    """What was confirmed and received by then. at: seconds since the start."""

    at: float
    confirmed: int
    received: int


class Watcher(Protocol):
    """Is told what goes on, from several threads."""

    def progress(self, sample: Sample, text: str) -> None: ...

    def fault(self, at: float, fault: Fault) -> None: ...


@dataclass
class Result:
    """published, drained: seconds. The stalls: the longest time without a confirmation, or a delivery, in seconds."""

    broker: str
    plan: Plan
    published: float
    drained: float
    confirmed: int
    received: int
    confirm_stall: float
    receive_stall: float
    balances: list[Balance]
    faults: list[Happened]
    errors: dict[str, int]
    examples: dict[str, str]
    defects: list[str]
    samples: list[Sample] = field(default_factory=list)
    peak_megabytes: float = 0.0

    @property
    def upheld(self) -> bool:
        """Whether the guarantee is, everywhere, and nothing broke."""
        return all(balance.upheld for balance in self.balances) and not self.defects


def soak(harness: Harness, plan: Plan, watcher: Watcher) -> Result:
    """Runs it. Raises what connecting and declaring raise; what happens later is in the result."""
    return _Soak(harness, plan, watcher).run()


class _Soak:
    def __init__(self, harness: Harness, plan: Plan, watcher: Watcher) -> None:
        self._harness, self._plan, self._watcher = harness, plan, watcher
        self._errors = Errors()
        self._confirmed, self._delivered = Meter(), Meter()
        self._received: dict[Source, Received] = {}
        self._books: dict[Destination, Published] = {}
        self._samples: list[Sample] = []
        self._backlog = 20_000 if harness.volume >= 1000 else 2_000
        self._ending_publishers, self._ending_members = Event(), Event()

    def run(self) -> Result:
        destinations = self._destinations()
        with ExitStack() as stack:
            stack.callback(self._delete, destinations)
            link = None
            if self._harness.link is not None:
                link = self._harness.link()
                stack.callback(link.close)
            connect: Callable[..., Broker] = link.connect if link else self._harness.connect
            publishing = connect(topology=destinations)
            stack.callback(self._close, publishing)
            consuming = connect(topology=destinations)
            stack.callback(self._close, consuming)
            publishers, members, processes = self._traffic(destinations, publishing, consuming)
            ending_faults = Event()
            injector = Injector(
                self._harness, link, self._plan.schedule(), members, processes, self._watcher.fault, ending_faults,
                self._errors,
            )  # fmt: skip
            self._started = time.monotonic()
            for meter in (self._confirmed, self._delivered):
                meter.start()
            for thread in (*members, *processes, *publishers, injector):
                thread.start()
            try:
                with suppress(KeyboardInterrupt):  # ends the publishing early; the account is given all the same
                    self._wait(self._goal)
                published = time.monotonic() - self._started
            finally:
                ending_faults.set()
                injector.join(180)  # a broker may be on its way back
                self._ending_publishers.set()
            join([injector], 1, self._errors)
            join(publishers, _JOIN, self._errors)
            self._confirmed.stop()
            self._drain()
            self._ending_members.set()
            join([*members, *processes], _JOIN, self._errors)
            self._bury()
            return self._result(published, injector.log)

    def _destinations(self) -> list[Destination]:
        able, run = self._harness.capabilities, uuid4().hex[:8]
        found: list[Destination] = []
        if able.queues:
            found.append(Queue(f"soak-{run}-queue"))
            if able.ordering:
                found.append(Queue(f"soak-{run}-keyed", ordered=True))
        if able.topics:
            found.append(Topic(f"soak-{run}-topic", "a", "b", ordered=bool(able.ordering)))
        return found

    def _traffic(
        self, destinations: list[Destination], publishing: Broker, consuming: Broker
    ) -> tuple[list[Publisher], list[Member], list[ChildMember]]:
        publishers: list[Publisher] = []
        members: list[Member] = []
        processes: list[ChildMember] = []
        lease = _LEASE if self._harness.capabilities.lease else None
        for destination in destinations:
            book = self._books[destination] = Published(_PRODUCERS, _KEYS, self._confirmed)
            for source in _sources(destination):
                received = Received(source.name, book, source.ordered, self._delivered)
                self._received[source] = received
                members += [
                    Member(consuming, source, received, lease, self._ending_members, self._errors)
                    for _ in range(_MEMBERS)
                ]
                # What a process tells comes later than what others handle meanwhile: it can prove no order.
                if "kill-consumer" in self._plan.kinds and isinstance(destination, Queue) and not source.ordered:
                    assert self._harness.remote is not None
                    url, name = self._harness.remote, destination.name
                    processes.append(ChildMember(url, name, received, self._ending_members, self._errors))
            publishers += [
                Publisher(
                    publishing, destination, book, number, self._too_far_ahead(destination), self._ending_publishers,
                    self._errors,
                )
                for number in range(_PRODUCERS)
            ]  # fmt: skip
        return publishers, members, processes

    def _too_far_ahead(self, destination: Destination) -> Callable[[], bool]:
        sources = [received for source, received in self._received.items() if source.destination == destination]
        return lambda: any(received.backlog > self._backlog for received in sources)

    def _goal(self) -> bool:
        plan = self._plan
        if self._errors.defects:
            return True
        if plan.messages is not None and self._confirmed.total >= plan.messages:
            return True
        return plan.seconds is not None and time.monotonic() - self._started >= plan.seconds

    def _wait(self, condition: Callable[[], bool], text: str = "") -> None:
        while not condition():
            self._sample(text)
            time.sleep(_TICK)

    def _sample(self, text: str) -> Sample:
        sample = Sample(time.monotonic() - self._started, self._confirmed.total, self._delivered.total)
        self._samples.append(sample)
        self._watcher.progress(sample, text)
        return sample

    def _drain(self) -> None:
        """Returns once all that was confirmed is there and nothing more comes, or when nothing moves any more."""
        total, since = self._delivered.total, time.monotonic()
        while True:
            missing = sum(received.missing() for received in self._received.values())
            if self._delivered.total != total:
                total, since = self._delivered.total, time.monotonic()
            if time.monotonic() - since > (self._plan.drain if missing else _QUIET):
                return
            if missing:
                self._delivered.stop()
            else:
                self._delivered.start()
            self._sample(f"draining, {missing:,} to come")
            time.sleep(_TICK)

    def _bury(self) -> None:
        """What the broker or the adapter gave up on is told apart from what is lost."""
        for source, received in self._received.items():
            group = source.group
            if not received.missing():
                continue
            try:
                with self._harness.broker.dead_letters(source.destination, group) as consumer:
                    until = time.monotonic() + 5
                    while time.monotonic() < until:
                        with suppress(SettleFailed):
                            found = consumer.receive(200, 1.0)
                            received.bury(map(number_of, found))
                            consumer.ack(found)
            except MessagingError as error:
                self._errors.add("dead letters", error)

    def _result(self, published: float, faults: list[Happened]) -> Result:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Result(
            self._harness.name,
            self._plan,
            published,
            time.monotonic() - self._started - published,
            self._confirmed.total,
            self._delivered.total,
            self._confirmed.stall,
            self._delivered.stall,
            [received.balance() for received in self._received.values()],
            faults,
            dict(self._errors.seen),
            dict(self._errors.examples),
            self._errors.defects,
            self._samples,
            peak / (1 << 20 if sys.platform == "darwin" else 1 << 10),
        )

    def _close(self, broker: Broker) -> None:
        try:
            broker.close()
        except MessagingError as error:
            self._errors.add("close", error)

    def _delete(self, destinations: list[Destination]) -> None:
        try:
            self._harness.broker.delete(destinations)
        except MessagingError:
            self._harness.renew()
            with suppress(MessagingError):
                self._harness.broker.delete(destinations)


def _sources(destination: Destination) -> list[Source]:
    if isinstance(destination, Queue):
        return [Source(destination)]
    return [Source(destination, subscription) for subscription in destination.subscriptions]
