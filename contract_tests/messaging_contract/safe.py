"""A run that is safe on a cluster which others use: what it leaves out, an account of what it makes, and cleaning up.

The queues and topics of a clause have names that nobody else has (`mc-`, and 48 random bits), so nothing of anybody
else's is touched. What is left is to break nothing, to send little, and to leave nothing behind, also when the run is
interrupted half way.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Condition
from types import FrameType
from typing import Any
from uuid import uuid4

from messaging import Broker, Queue, Topic, Topology
from messaging.concerns import Concern
from messaging.errors import Closed, MessagingError
from messaging.topology import Destination
from messaging_contract.clause import Clause
from messaging_contract.harness import Connect, Harness, Remains

VOLUME = 100
"""The most messages that a clause publishes."""

_HARMFUL = frozenset(
    {"restart", "pause", "unpause", "link", "remote", "at", "several_hosts", "wrong_credentials", "congested", "drift"}
)
_LEFT_OUT = {
    "lifecycle.sigterm": "it starts a process, which an interrupted run could not clean up behind",
    "delay.topic": "on RabbitMQ it makes a queue that all delayed topics share, which stays (messaging--delay--sink)",
}
_SWEEP_SECONDS = 60.0
_LATEST = 20
"""Destinations at most that the clause which is interrupted has declared."""
_NEW = re.compile(r"((?:SQS )?\w+) 'mc-[0-9a-f]{12}-[^']*'")


def left_out(clause: Clause) -> str:
    """Why a safe run leaves this clause out; empty when it does not."""
    if broken := sorted(_HARMFUL.intersection(clause.controls)):
        return f"not in a safe run: it needs the control {', '.join(broken)}"
    return f"not in a safe run: {reason}" if (reason := _LEFT_OUT.get(clause.id)) else ""


class Safety:
    """Knows what a run has made on the brokers, and deletes what is left of it. Thread-safe: `_changed` guards all.

    delays: seconds after which the user's retries come. topology: the user's own, whose settings are looked at.
    """

    def __init__(self, topology: Topology | None = None, delays: tuple[float, ...] = ()) -> None:
        self._topology = topology or Topology()
        self._delays = delays
        self._changed = Condition()
        self._declaring = 0
        self._ended = False
        self._brokers: list[Broker] = []
        self._made: dict[Destination, Connect] = {}
        self._ever: dict[Destination, Connect] = {}
        self._remains: dict[Connect, Remains] = {}
        self.concerns: list[Concern] = []
        """What the settings of the brokers that were opened do not uphold."""

    def opening(self, opened: Callable[[], Harness]) -> Callable[[], Harness]:
        """As `opened`, with the harness made safe and the broker's settings looked at."""

        def opening() -> Harness:
            harness = opened()
            self.guard(harness)
            harness.concerns = self._look(harness)
            self.concerns += harness.concerns
            stopping = next((concern for concern in harness.concerns if concern.stops), None)
            if stopping is not None:
                harness.spares = lambda clause: left_out(clause) or f"nothing can be published now: {stopping}"
            return harness

        return opening

    def guard(self, harness: Harness) -> None:
        """Keeps an account of what is made through `harness`, and leaves out the clauses that are not safe."""
        harness.spares = left_out
        harness.volume = min(harness.volume, VOLUME)
        harness.renew()
        connect = harness.connect
        if harness.remains is not None:
            self._remains[connect] = harness.remains

        def guarded(**options: Any) -> Broker:
            with self._declares(options.get("topology"), connect):
                broker = connect(**options)
            self._watch(broker, connect)
            return broker

        harness.connect = guarded
        harness.closing.append(self.sweep)

    def sweep(self) -> None:
        """Closes every connection and deletes what was made and is still there. Idempotent.

        Raises AssertionError with the names when something could not be deleted within a minute.
        """
        deadline = time.monotonic() + _SWEEP_SECONDS
        with self._changed:
            self._ended = True
            brokers, self._brokers = self._brokers, []
        for broker in brokers:
            try:
                broker.close()
            except MessagingError:
                pass  # what it held comes back to queues that are deleted next
        with self._changed:
            # What is being made at this moment has to be there before it can be deleted.
            self._changed.wait_for(lambda: not self._declaring, max(deadline - time.monotonic(), 0.0))
            # The thread of an interrupted clause goes on while that is cleaned up: until its connections were closed, a
            # consumer of its may have made again what it reads.
            self._made.update(list(self._ever.items())[-_LATEST:])
        failure: MessagingError | None = None
        while self._made:
            try:
                self._delete()
            except MessagingError as error:
                failure = error
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.5)
        self._again(deadline)
        if self._made:
            names = ", ".join(sorted(destination.name for destination in self._made))
            raise AssertionError(
                f"could not be deleted and is left on the broker: {names}{f': {failure}' if failure else ''}"
            ) from failure

    def _again(self, deadline: float) -> None:
        """Deletes once more what the broker would not give up: Kafka keeps a group until its last member has left."""
        for connect, remains in self._remains.items():
            ever = {destination: by for destination, by in self._ever.items() if by is connect}
            while names := remains({destination.name for destination in ever}):
                self._made.update({destination: by for destination, by in ever.items() if destination.name in names})
                if time.monotonic() >= deadline:
                    return
                time.sleep(0.5)
                self._delete()

    def _delete(self) -> None:
        for connect in dict.fromkeys(self._made.values()):
            with connect() as broker:
                for destination in [d for d, by in self._made.items() if by is connect]:
                    broker.delete(destination)
                    del self._made[destination]

    def _watch(self, broker: Broker, connect: Connect) -> None:
        declare, delete = broker.declare, broker.delete

        def watched_declare(topology: Any) -> None:
            with self._declares(topology, connect):
                declare(topology)

        def watched_delete(topology: Any) -> None:
            delete(topology)
            with self._changed:
                for gone in Topology.of(topology):
                    for made in [made for made in self._made if _covers(gone, made)]:
                        del self._made[made]

        broker.declare = watched_declare  # type: ignore[method-assign]
        broker.delete = watched_delete  # type: ignore[method-assign]
        with self._changed:
            self._brokers.append(broker)

    @contextmanager
    def _declares(self, topology: Any, connect: Connect) -> Iterator[None]:
        with self._changed:
            if self._ended:
                raise Closed("the run has ended, and nothing is made any more")
            self._declaring += 1
            # Before it is made: of what is interrupted half way, something may be there.
            self._made.update(dict.fromkeys(Topology.of(topology), connect))
            self._ever.update(dict.fromkeys(Topology.of(topology), connect))
        try:
            yield
        finally:
            with self._changed:
                self._declaring -= 1
                self._changed.notify_all()

    def _look(self, harness: Harness) -> list[Concern]:
        """Makes one queue and one topic as clauses do, looks at their settings and the user's, and deletes them."""
        broker = harness.broker
        probe = probes(broker)
        try:
            broker.declare(probe)
            found = broker.concerns(probe.merge(self._topology), delays=self._delays)
        finally:
            try:
                broker.delete(probe)
            except MessagingError:
                harness.renew()
                harness.broker.delete(probe)
        return [replace(concern, about=_NEW.sub(r"a new \1", concern.about)) for concern in found]


def probes(broker: Broker) -> Topology:
    """A queue and a topic with a subscription, where the broker has them, with new names."""
    test_id = uuid4().hex[:12]
    kinds: list[Destination] = []
    if broker.capabilities.queues:
        kinds.append(Queue(f"mc-{test_id}-1"))
    if broker.capabilities.topics:
        kinds.append(Topic(f"mc-{test_id}-2", "g"))
    return Topology(*kinds)


def _covers(gone: Destination, made: Destination) -> bool:
    """Whether deleting `gone` has deleted all of `made`."""
    if gone.name != made.name:
        return False
    left = {s.group for s in made.subscriptions} if isinstance(made, Topic) else set()
    return left <= ({s.group for s in gone.subscriptions} if isinstance(gone, Topic) else set())


@contextmanager
def interruptible(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """SIGTERM ends the run as Ctrl-C does; from then on both are ignored, until what was made is deleted.

    Yields what tells the exit status of who was interrupted, 0 when nobody was.
    """
    status = 0

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal status
        status = 128 + number
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        say("interrupted: deleting what this run has made, which takes up to a minute")
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: status
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
