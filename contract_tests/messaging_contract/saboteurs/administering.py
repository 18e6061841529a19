"""Saboteurs of the driver itself: topology, counts, leases, capabilities."""

from __future__ import annotations

from dataclasses import replace

from messaging.capabilities import unsupported
from messaging.options import ConsumerOptions
from messaging.topology import Queue, Source, Subscription, Topic, Topology, sources_of
from messaging_contract.saboteurs.receiving import ExtendsSilently
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver


class CreatesWhenChecking(HonestDriver):
    """Creates what is missing though it was only to look."""

    def declare(self, topology: Topology, create: bool) -> None:
        super().declare(topology, True)


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


class CountsOneTooMany(HonestDriver):
    """Says one more message waits than does."""

    def depth(self, source: Source) -> int:
        return super().depth(source) + 1


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
