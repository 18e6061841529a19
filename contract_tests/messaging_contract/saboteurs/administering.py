"""Saboteurs of the driver itself: topology, counts, leases, capabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event, Thread
from time import sleep
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from messaging.capabilities import Capability, Support, unsupported
from messaging.delivery import Delivery
from messaging.driver import Replay
from messaging.errors import BrokerUnavailable, DestinationNotFound, UnsupportedCapability
from messaging.message import Message
from messaging.options import ConsumerOptions
from messaging.plan import Finding, Part
from messaging.topology import Destination, Queue, Source, Subscription, Topic, Topology, sources_of
from messaging_contract.saboteurs.receiving import ExtendsSilently
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver
from messaging_memory import MemoryServer
from messaging_memory.driver import MemoryOptions


class CreatesWhenChecking(HonestDriver):
    """Creates what is missing though it was only to look."""

    def declare(self, topology: Topology, create: bool) -> None:
        super().declare(topology, True)


class PlansNoDeadLetters(HonestDriver):
    """Leaves the dead-letter queues out of the plan."""

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        return [part for part in super().plan(topology, delays) if not part.name.endswith("--dlq")]


class FindsEverything(HonestDriver):
    """Says that everything is there as declared."""

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        return [Finding(part, "there") for part in parts]


class MakesWhatItLooksFor(HonestDriver):
    """Creates what is missing when it is only to inspect, and finds it the next time."""

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        self._looked_for = topology
        return super().plan(topology, delays)

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        found = super().inspect(parts)
        if all(finding.state == "missing" for finding in found):
            self.declare(self._looked_for, True)
        return found

    _looked_for = Topology()


class IgnoresPatterns(HonestDriver):
    """Gives every subscription all messages."""

    def declare(self, topology: Topology, create: bool) -> None:
        plain = [
            Topic(d.name, *(replace(s, pattern="#") for s in d.subscriptions), ordered=d.ordered, native=d.native)
            if isinstance(d, Topic)
            else d
            for d in topology
        ]
        super().declare(Topology(*plain), create)


class StartsAtTheBeginning(HonestDriver):
    """Gives a new subscription what was published before it."""

    def declare(self, topology: Topology, create: bool) -> None:
        super().declare(topology, create)
        for source in topology.sources:
            if source.subscription is not None and self.inner.depth(source) == 0:
                self.server.replay(source, "beginning")


class DeclaringStartsAnew(HonestDriver):
    """Empties a subscription that is declared again."""

    def declare(self, topology: Topology, create: bool) -> None:
        super().declare(topology, create)
        for source in topology.sources:
            self.inner.purge(source)


class IgnoresPrefetch(HonestDriver):
    """Takes as many messages as there are."""

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        return super().receiver(source, replace(options, prefetch=1_000_000))


class NoHeartbeat(HonestDriver):
    """Lets leases run out under slow handlers."""

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        return super().receiver(source, replace(options, heartbeat=False))


class LeasesForEver(HonestDriver):
    """Never gives a message to somebody else."""

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        return super().receiver(source, replace(options, heartbeat=True))


class PurgesAllGroups(HonestDriver):
    """Purging one subscription empties them all."""

    def purge(self, source: Source) -> None:
        known = self.server._logs.get(source.destination.name)
        groups = [name.partition("--")[2] for name in known.groups] if known else []
        everything = Topic(source.destination.name, *groups) if known else source.destination
        for each in sources_of(everything):
            self.inner.purge(each)


class CountsWhatIsMissing(HonestDriver):
    """Says that nothing waits in what is not there."""

    def depth(self, source: Source) -> int:
        try:
            return super().depth(source)
        except DestinationNotFound:
            return 0


class CountsOneTooMany(HonestDriver):
    """Says one more message waits than does."""

    def depth(self, source: Source) -> int:
        return super().depth(source) + 1


class DeletesOthersDeadLetters(HonestDriver):
    """Deletes a dead-letter queue with a queue that is told to have none."""

    def delete(self, topology: Topology) -> None:
        super().delete(topology)
        queues = [each.name for each in topology if isinstance(each, Queue) and "--dlq" not in each.name]
        super().delete(Topology(*(Queue(f"{name}--dlq", dead_letter=False) for name in queues)))


class DeletesNothing(HonestDriver):
    """Says it deleted."""

    def delete(self, topology: Topology) -> None:
        pass


class SharesOneGroup(HonestDriver):
    """Lets all groups of a topic share one copy."""

    def declare(self, topology: Topology, create: bool) -> None:
        super().declare(Topology(*(_one_group(d) if isinstance(d, Topic) else d for d in topology)), create)

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        if isinstance(source.destination, Topic) and source.subscription is not None:
            topic = _one_group(source.destination)
            super().declare(Topology(topic), True)
            source = Source(topic, topic.subscriptions[0])
        return super().receiver(source, options)

    def depth(self, source: Source) -> int:
        if isinstance(source.destination, Topic):
            topic = _one_group(source.destination)
            source = Source(topic, topic.subscriptions[0])
        return super().depth(source)


def _one_group(topic: Topic) -> Topic:
    return Topic(topic.name, Subscription("all"), ordered=topic.ordered) if topic.subscriptions else topic


class IgnoresOrderedDeclarations(HonestDriver):
    """Does not mind that a queue is declared ordered that is not."""

    def declare(self, topology: Topology, create: bool) -> None:
        known = self.server._queues
        kept = [
            replace(d, ordered=known[d.name].ordered) if isinstance(d, Queue) and d.name in known else d
            for d in topology
        ]
        super().declare(Topology(*kept), create)


class PretendsToExtend(HonestDriver):
    """Declares that it has no leases, and ignores it when one is to be extended."""

    Receiver = ExtendsSilently
    capabilities = replace(HonestDriver.capabilities, lease=unsupported("none"))


class RefusesNothing(HonestDriver):
    """Declares that it has no dead-letter queues, and takes a reject all the same."""

    capabilities = replace(HonestDriver.capabilities, dead_letter=unsupported("none"))


class ExpiresAnyway(HonestDriver):
    """Declares that messages cannot expire, and takes a time to live all the same."""

    capabilities = replace(HonestDriver.capabilities, ttl=unsupported("none"))


class DelaysAnyway(HonestDriver):
    """Declares that a nack cannot be delayed, and takes a delay all the same."""

    capabilities = replace(HonestDriver.capabilities, nack_delay=unsupported("none"))


class ClaimsReplay(HonestReceiver):
    """Declares replay, and refuses it."""

    def replay(self, since: Replay) -> None:
        raise UnsupportedCapability("memory does not support replay")


class TakesAnySize(HonestDriver):
    """Declares a limit, and takes what is larger."""

    capabilities = replace(HonestDriver.capabilities, max_message_bytes=1_000_000)

    def check(self, message: Message, destination: Destination) -> None:
        pass


class ClosesEverybody(HonestDriver):
    """Closing one connection closes the consumers of all."""

    _consumers: ClassVar[WeakKeyDictionary[MemoryServer, list[HonestReceiver]]] = WeakKeyDictionary()

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        receiver = super().receiver(source, options)
        self._consumers.setdefault(self.server, []).append(receiver)
        return receiver

    def close(self) -> None:
        for receiver in self._consumers.pop(self.server, []):
            receiver.close()
        super().close()


class StarvesTheSecond(HonestDriver):
    """Gives all messages of a source to the consumer that came first."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._first: set[str] = set()

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        receiver = super().receiver(source, options)
        if source.name in self._first:
            receiver.pause()
        self._first.add(source.name)
        return receiver


class FailsToPing(HonestDriver):
    """Pings over a connection that nobody keeps open."""

    def ping(self) -> None:
        raise BrokerUnavailable("the connection was idle for too long")


class CallsItselfOtherwise(HonestDriver):
    """Has another name than its URLs."""

    name = "memory-client"


class HidesItsClient(HonestDriver):
    """Has no native object."""

    @property
    def native(self) -> Any:
        return None


class ExplainsNothing(HonestDriver):
    """Emulates a capability and does not say how."""

    capabilities = replace(HonestDriver.capabilities, nack_delay=Capability(Support.EMULATED, ""))


class LeasesShortly(HonestDriver):
    """Leases for a moment when it is not told for how long, and does not renew."""

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        if options.lease is None:
            options = replace(options, lease=0.4, heartbeat=False)
        return super().receiver(source, options)


class LeavesItsThread(HonestDriver):
    """Does not end its heartbeat thread."""

    def open(self) -> None:
        super().open()
        Thread(target=Event().wait, args=(60,), name="heartbeat", daemon=True).start()


class JoinsForTooLong(HonestDriver):
    """Waits, when it is closed, for a thread that does not end."""

    def close(self) -> None:
        Event().wait(20)
        super().close()


@dataclass(frozen=True)
class _AnyOptions(MemoryOptions):
    connect_timeout: Any = 5.0


class TakesAnyOption(HonestDriver):
    """Does not say of what type its options are."""

    Options = _AnyOptions


class TakesAnyNativeOption(HonestDriver):
    """Ignores native options that it does not know."""

    def declare(self, topology: Topology, create: bool) -> None:
        super().declare(Topology(*(replace(d, native={}) if isinstance(d, Queue) else d for d in topology)), create)


class LocksNoKeys(HonestDriver):
    """Gives the messages of one key to several consumers at once."""

    def declare(self, topology: Topology, create: bool) -> None:
        super().declare(topology, create)
        for source in topology.sources:
            self.server.store(source).ordered = False


class StartsAtTheEnd(HonestDriver):
    """Gives the first consumer of a source only what is published after it came."""

    _known: ClassVar[WeakKeyDictionary[MemoryServer, set[str]]] = WeakKeyDictionary()

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        known = self._known.setdefault(self.server, set())
        if source.name not in known:
            known.add(source.name)
            self.inner.purge(source)
        return super().receiver(source, options)


class PrefetchesOne(HonestDriver):
    """Takes one message at a time, whatever the prefetch."""

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        return super().receiver(source, replace(options, prefetch=1))


class PurgesDeadLettersToo(HonestDriver):
    """Purging a source purges what it gave up."""

    def purge(self, source: Source) -> None:
        super().purge(source)
        if source.dead_letter is not None:
            super().purge(Source(source.dead_letter))


class PurgesNothing(HonestDriver):
    """Says it purged."""

    def purge(self, source: Source) -> None:
        pass


class _CountsTheNacked(HonestReceiver):
    room = 0

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        if self.room <= 0:
            sleep(timeout)
            return []
        return super().receive(min(max_messages, self.room), timeout)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self.room -= len(deliveries)
        super().nack(deliveries, delay)


class FreesOnlyByAck(HonestDriver):
    """Counts what was nacked as if it were still held."""

    Receiver = _CountsTheNacked

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        receiver = super().receiver(source, options)
        assert isinstance(receiver, _CountsTheNacked)
        receiver.room = options.prefetch
        return receiver
