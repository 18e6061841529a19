"""Queues, topics and subscriptions as values.

A `Queue` is point-to-point: each message goes to one consumer of a competing pool. A `Topic` is
publish/subscribe: each `Subscription` (consumer group) gets its own copy of every message published after the
subscription was declared; consumers inside a group compete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from messaging.errors import TopologyError
from messaging.names import check_dead_letter_name, check_name, dead_letter_name, subscription_name
from messaging.patterns import MATCH_ALL, check_pattern

NativeOptions = Mapping[str, Mapping[str, Any]]
"""Options for one broker only, by adapter name: `{"kafka": {"partitions": 12}}`. Other adapters ignore them."""


@dataclass(frozen=True)
class Queue:
    """A point-to-point queue.

    ordered: messages of one key are handled one at a time, in publish order; each message then needs a key.
    dead_letter: rejected messages go to `<name>--dlq`; without it they are discarded, with a warning in the log.
    """

    name: str
    ordered: bool = False
    dead_letter: bool = True
    native: NativeOptions = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if isinstance(self.name, str) and self.name.endswith("--dlq"):
            check_dead_letter_name(self.name)
        else:
            check_name(self.name, "queue")


@dataclass(frozen=True)
class Subscription:
    """A group's own copy of a topic.

    pattern: which message types it takes, for example `order.*` (one word) or `order.#` (any number of words).
    dead_letter: as for `Queue`; the dead-letter queue is `<topic>--<group>--dlq`.
    """

    group: str
    pattern: str = MATCH_ALL
    dead_letter: bool = True
    native: NativeOptions = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_name(self.group, "group")
        check_pattern(self.pattern)


@dataclass(frozen=True, init=False)
class Topic:
    """A publish/subscribe topic with its subscriptions. `ordered` is as for `Queue`, within each subscription."""

    name: str
    subscriptions: tuple[Subscription, ...]
    ordered: bool
    native: NativeOptions = field(hash=False)

    def __init__(
        self,
        name: str,
        *subscriptions: Subscription | str,
        ordered: bool = False,
        native: NativeOptions | None = None,
    ) -> None:
        values = tuple(Subscription(s) if isinstance(s, str) else s for s in subscriptions)
        object.__setattr__(self, "name", check_name(name, "topic"))
        object.__setattr__(self, "subscriptions", values)
        object.__setattr__(self, "ordered", ordered)
        object.__setattr__(self, "native", native or {})
        groups = [s.group for s in values]
        for group in groups:
            if groups.count(group) > 1:
                raise TopologyError(f"topic {name!r} declares subscription {group!r} twice")

    def subscription(self, group: str) -> Subscription | None:
        """The subscription of `group`, or None."""
        return next((s for s in self.subscriptions if s.group == group), None)


Destination = Queue | Topic


@dataclass(frozen=True)
class Source:
    """What a consumer reads: a queue, or one subscription of a topic."""

    destination: Destination
    subscription: Subscription | None = None

    @property
    def name(self) -> str:
        """`<queue>` or `<topic>--<group>`."""
        if self.subscription is None:
            return self.destination.name
        return subscription_name(self.destination.name, self.subscription.group)

    @property
    def group(self) -> str | None:
        """Of the subscription; None of a queue."""
        return None if self.subscription is None else self.subscription.group

    @property
    def ordered(self) -> bool:
        return self.destination.ordered

    @property
    def pattern(self) -> str:
        return MATCH_ALL if self.subscription is None else self.subscription.pattern

    @property
    def dead_letter(self) -> Queue | None:
        """The queue that rejected messages go to, or None when they are discarded. Ordered like its source."""
        holder = self.destination if isinstance(self.destination, Queue) else self.subscription
        if holder is None or not holder.dead_letter:
            return None
        return Queue(dead_letter_name(self.name), ordered=self.ordered, dead_letter=False)

    @property
    def queue(self) -> Queue:
        """The queue of that name: where brokers that have no subscriptions of their own keep one."""
        if isinstance(self.destination, Queue):
            return self.destination
        queue = Queue("subscription", self.ordered, dead_letter=False)
        object.__setattr__(queue, "name", self.name)  # which nobody else may give a queue
        return queue

    def __str__(self) -> str:
        return f"queue {self.name!r}" if self.subscription is None else f"subscription {self.name!r}"


class Topology:
    """A set of queues and topics, by name. Immutable.

    Raises TopologyError when two declarations of one name contradict each other; two declarations of one topic
    with different groups are merged.
    """

    def __init__(self, *destinations: Destination) -> None:
        self._by_name: dict[str, Destination] = {}
        for destination in destinations:
            if not isinstance(destination, Queue | Topic):
                raise TopologyError(f"a topology is made of Queue and Topic, not of {destination!r}: use Queue('jobs')")
            known = self._by_name.get(destination.name)
            self._by_name[destination.name] = destination if known is None else _merge(known, destination)

    @classmethod
    def of(cls, value: Topology | Destination | Iterable[Destination] | None) -> Topology:
        """`value` as a Topology: one destination, several, another Topology, or None for an empty one."""
        if value is None:
            return cls()
        if isinstance(value, Topology):
            return value
        if isinstance(value, Queue | Topic | str):
            return cls(value)  # a str is refused there
        return cls(*value)

    def __iter__(self) -> Iterator[Destination]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topology) and self._by_name == other._by_name

    def __hash__(self) -> int:
        return hash(frozenset(self._by_name.values()))

    def __repr__(self) -> str:
        return f"Topology({', '.join(map(repr, self))})"

    def get(self, name: str) -> Destination | None:
        """The queue or topic called `name`, or None."""
        return self._by_name.get(name)

    def merge(self, other: Topology | Destination | Iterable[Destination]) -> Topology:
        """Both together. Raises TopologyError when they contradict each other."""
        return Topology(*self, *Topology.of(other))

    @property
    def sources(self) -> list[Source]:
        """Everything that can be consumed: every queue, every subscription."""
        return [source for destination in self for source in sources_of(destination)]


def sources_of(destination: Destination) -> list[Source]:
    """The sources behind one destination: itself for a queue, one a subscription for a topic."""
    if isinstance(destination, Queue):
        return [Source(destination)]
    return [Source(destination, subscription) for subscription in destination.subscriptions]


def _merge(one: Destination, two: Destination) -> Destination:
    if one == two:
        return one
    if not (isinstance(one, Topic) and isinstance(two, Topic)):
        raise TopologyError(f"{one.name!r} is declared twice and differently: {one} and {two}")
    if (one.ordered, one.native) != (two.ordered, two.native):
        raise TopologyError(f"topic {one.name!r} is declared twice and differently: {one} and {two}")
    merged = dict.fromkeys(one.subscriptions)
    for subscription in two.subscriptions:
        known = one.subscription(subscription.group)
        if known is not None and known != subscription:
            raise TopologyError(
                f"subscription {subscription.group!r} of topic {one.name!r} is declared twice and differently: "
                f"{known} and {subscription}"
            )
        merged[subscription] = None
    return Topic(one.name, *merged, ordered=one.ordered, native=one.native)
