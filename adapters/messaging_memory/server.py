"""The broker itself: queues, topics with their logs, and routing. Thread-safe."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import count, islice
from threading import Condition, RLock
from typing import Any

from messaging.errors import DestinationNotFound, TopologyError
from messaging.message import Message
from messaging.names import dead_letter_name
from messaging.patterns import matches
from messaging.topology import Queue, Source, Topic, sources_of
from messaging_memory.clock import Clock
from messaging_memory.store import Store

RETAIN = 10_000
"""Messages that a topic keeps for replay, unless told otherwise."""


class Log:
    """The last `retain` messages of a topic, for replay, and the offset of the first of them."""

    def __init__(self, topic: Topic, retain: int) -> None:
        self.topic = topic
        self.next_offset = 0
        self.messages: deque[Message] = deque(maxlen=retain)
        self.groups: dict[str, str] = {}

    def append(self, message: Message) -> None:
        self.messages.append(message)
        self.next_offset += 1

    def since(self, offset: int) -> Iterable[Message]:
        first = self.next_offset - len(self.messages)
        return islice(self.messages, max(offset - first, 0), None)


class MemoryServer:
    """Give one to several `connect("memory://", server=server)` to let them share a broker.

    capacity: messages a queue holds at most; beyond it publishes wait until their deadline, then fail. retain:
    messages a topic keeps for replay. `changed` guards all state, here and in every `Store`.
    """

    def __init__(self, clock: Clock | None = None, capacity: int | None = None, retain: int = RETAIN) -> None:
        self.clock = clock or Clock()
        self.capacity = capacity
        self.retain = retain
        self.changed = Condition(RLock())
        self._stores: dict[str, Store] = {}
        self._queues: dict[str, Queue] = {}
        self._logs: dict[str, Log] = {}
        self._leases = count(1)
        self.clock.on_advance(self._wake)

    def declare(self, destination: Queue | Topic, create: bool) -> None:
        """Creates what is missing, or only looks. Raises DestinationNotFound, TopologyError."""
        with self.changed:
            if isinstance(destination, Queue):
                self._declare_queue(destination, create)
            else:
                self._declare_topic(destination, create)

    def look(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """What is called `name` ("queue", "topic" or "subscription") and how it was declared; None: it is not there."""
        with self.changed:
            if (queue := self._queues.get(name)) is not None:
                return "queue", {"ordered": queue.ordered}
            if (log := self._logs.get(name)) is not None:
                return "topic", {"ordered": log.topic.ordered}
            for log in self._logs.values():
                if name in log.groups:
                    return "subscription", {"pattern": log.groups[name]}
            return None

    def store(self, source: Source) -> Store:
        """Where the messages of `source` are. Raises DestinationNotFound."""
        store = self._stores.get(source.name)
        if store is None:
            raise DestinationNotFound(f"{source} does not exist: declare it first")
        return store

    def publish(
        self, destination: Queue | Topic, message: Message, delay: float, only: Source | None = None
    ) -> int | None:
        """Stores one message; returns in how many queues, or None when one is full. Raises DestinationNotFound.

        only: the one subscription that gets it; then it is not in the topic's log either.
        """
        with self.changed:
            stores = self._route(destination, message) if only is None else [self.store(only)]
            if any(store.full for store in stores):
                return None
            for store in stores:
                store.add(message, delay)
            if isinstance(destination, Topic) and only is None:
                self._logs[destination.name].append(message)
            self.changed.notify_all()
            return len(stores)

    def replay(self, source: Source, since: str | float | dict[int, int]) -> None:
        """Replaces what waits in a subscription by what the topic's log holds from `since` on."""
        with self.changed:
            log = self._logs.get(source.destination.name)
            if log is None:
                raise DestinationNotFound(f"{source} does not exist: declare it first")
            store = self._new_store(source.name, source.ordered)
            offset = since.get(0, 0) if isinstance(since, dict) else 0
            earliest = since if isinstance(since, int | float) else 0.0
            for message in log.since(offset):
                if message.timestamp >= earliest and matches(source.pattern, message.type):
                    store.add(message, 0.0)
            self.store(source).clear()
            self._stores[source.name] = store
            self.changed.notify_all()

    def delete(self, destination: Queue | Topic) -> None:
        """Deletes a queue, or a topic with all its subscriptions, and the dead-letter queues of what has some."""
        with self.changed:
            names = set()
            for source in sources_of(destination):
                names.add(source.name)
                if source.dead_letter is not None:
                    names.add(source.dead_letter.name)
            log = self._logs.pop(destination.name, None)
            for name in set(log.groups if log is not None else ()) - names:  # those that somebody else declared
                names |= {name, dead_letter_name(name)}
            for name in names:
                store = self._stores.pop(name, None)
                if store is not None:
                    store.clear()
                self._queues.pop(name, None)
            self.changed.notify_all()

    def _route(self, destination: Queue | Topic, message: Message) -> list[Store]:
        if isinstance(destination, Queue):
            store = self._stores.get(destination.name)
            if store is None:
                raise DestinationNotFound(f"queue {destination.name!r} does not exist: declare it first")
            return [store]
        log = self._logs.get(destination.name)
        if log is None:
            raise DestinationNotFound(f"topic {destination.name!r} does not exist: declare it first")
        return [self._stores[name] for name, pattern in log.groups.items() if matches(pattern, message.type)]

    def _declare_queue(self, queue: Queue, create: bool) -> None:
        known = self._queues.get(queue.name)
        if known is None and not create:
            raise DestinationNotFound(f"queue {queue.name!r} does not exist and create=False")
        if queue.name in self._logs:
            raise TopologyError(f"{queue.name!r} is a topic on this broker, not a queue")
        if known is not None and known.ordered != queue.ordered:
            raise TopologyError(f"queue {queue.name!r} exists with ordered={known.ordered}: delete it, or declare that")
        if known is None:
            self._queues[queue.name] = queue
            self._stores[queue.name] = self._new_store(queue.name, queue.ordered)
        dead_letter = Source(queue).dead_letter
        if dead_letter is not None:
            self._declare_queue(dead_letter, create)

    def _declare_topic(self, topic: Topic, create: bool) -> None:
        if topic.name in self._queues:
            raise TopologyError(f"{topic.name!r} is a queue on this broker, not a topic")
        log = self._logs.get(topic.name)
        if log is None:
            if not create:
                raise DestinationNotFound(f"topic {topic.name!r} does not exist and create=False")
            log = self._logs[topic.name] = Log(topic, self.retain)
        elif log.topic.ordered != topic.ordered:
            raise TopologyError(
                f"topic {topic.name!r} exists with ordered={log.topic.ordered}: delete it, or declare that"
            )
        for source in sources_of(topic):
            if source.name not in self._stores:
                if not create:
                    raise DestinationNotFound(f"{source} does not exist and create=False")
                self._stores[source.name] = self._new_store(source.name, topic.ordered)
            known = log.groups.setdefault(source.name, source.pattern)
            if known != source.pattern:
                raise TopologyError(
                    f"{source} exists with pattern {known!r}, not {source.pattern!r}: messages that are waiting were "
                    f"routed by it; delete it, or declare that"
                )
            if source.dead_letter is not None:
                self._declare_queue(source.dead_letter, create)

    def _new_store(self, name: str, ordered: bool) -> Store:
        return Store(name, ordered, self.changed, self.clock, self.capacity, self._leases)

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()
