"""One queue of the memory broker: what is ready, what is delayed, what is leased to whom."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from threading import Condition

from messaging.message import Message
from messaging_memory.clock import Clock


class Entry:
    """A message in a queue. `lease` tells the current delivery from earlier ones: it changes with each."""

    __slots__ = ("attempts", "lease", "message", "owner", "position", "until")

    def __init__(self, message: Message, position: int) -> None:
        self.message = message
        self.position = position
        self.attempts = 0
        self.lease = 0
        self.owner: object | None = None
        self.until = 0.0


@dataclass(frozen=True)
class Depth:
    ready: int
    delayed: int
    leased: int

    @property
    def total(self) -> int:
        return self.ready + self.delayed + self.leased


class Store:
    """The messages of one queue or subscription. Thread-safe.

    `changed` guards everything in it, and is shared by the whole server, so that a publish to a topic reaches all
    its subscriptions at once. `leases` numbers the leases; it is shared too, so that a number means one lease of one
    store, also when a store is replaced by another of the same name. A key of an ordered store that has a leased
    message is locked to that owner.
    """

    def __init__(
        self,
        name: str,
        ordered: bool,
        changed: Condition,
        clock: Clock,
        capacity: int | None,
        leases: Iterator[int] | None = None,
    ) -> None:
        self.name = name
        self.ordered = ordered
        self.capacity = capacity
        self._changed = changed
        self._clock = clock
        self._position = 0
        self._ready: deque[Entry] = deque()
        self._delayed: list[tuple[float, int, Entry]] = []
        self._leased: dict[int, Entry] = {}
        self._leases = count(1) if leases is None else leases
        self._next_expiry = float("inf")
        self._keys: dict[str | None, tuple[object, int]] = {}

    def add(self, message: Message, delay: float) -> None:
        """Appends a message, ready in `delay` seconds. The caller holds `changed`."""
        self._position += 1
        entry = Entry(message, self._position)
        if delay > 0:
            heapq.heappush(self._delayed, (self._clock.now() + delay, entry.position, entry))
        else:
            self._ready.append(entry)

    @property
    def full(self) -> bool:
        return self.capacity is not None and self.depth().total >= self.capacity

    def take(self, owner: object, most: int, lease: float | None) -> list[tuple[int, Entry]]:
        """Leases up to `most` ready messages to `owner`, for `lease` seconds (None: until given back).

        Returns the lease numbers with the entries. The caller holds `changed`.
        """
        now = self._clock.now()
        self._wake_up(now)
        taken: list[tuple[int, Entry]] = []
        skipped: list[Entry] = []
        until = float("inf") if lease is None else now + lease
        while self._ready and len(taken) < most:
            entry = self._ready.popleft()
            if self.ordered and not self._lock_key(entry.message.key, owner):
                skipped.append(entry)
                continue
            number = next(self._leases)
            entry.lease, entry.owner, entry.until = number, owner, until
            entry.attempts += 1
            self._leased[number] = entry
            taken.append((number, entry))
        if taken:
            self._next_expiry = min(self._next_expiry, until)
        self._ready.extendleft(reversed(skipped))
        return taken

    def next_change(self) -> float | None:
        """Seconds until something becomes ready by itself, or None. The caller holds `changed`."""
        self._wake_up(self._clock.now())
        due = min(self._delayed[0][0] if self._delayed else float("inf"), self._next_expiry)
        return None if due == float("inf") else max(due - self._clock.now(), 0.0)

    def remove(self, lease: int) -> bool:
        """Acknowledges. False when the lease is gone."""
        with self._changed:
            return self._release(lease) is not None

    def give_back(self, lease: int, delay: float) -> bool:
        """Makes the message ready again in `delay` seconds. False when the lease is gone."""
        with self._changed:
            entry = self._release(lease)
            if entry is not None:
                self._put_back(entry, delay)
                self._changed.notify_all()
            return entry is not None

    def extend(self, lease: int, seconds: float) -> bool:
        """Sets the lease to end in `seconds` from now. False when it is gone."""
        with self._changed:
            self._wake_up(self._clock.now())
            entry = self._leased.get(lease)
            if entry is not None:
                entry.until = self._clock.now() + seconds
                self._next_expiry = min(self._next_expiry, entry.until)
            return entry is not None

    def is_leased(self, lease: int) -> bool:
        """Whether the lease still holds. The caller holds `changed`."""
        self._wake_up(self._clock.now())
        return lease in self._leased

    def depth(self) -> Depth:
        with self._changed:
            self._wake_up(self._clock.now())
            return Depth(len(self._ready), len(self._delayed), len(self._leased))

    def purge(self) -> None:
        with self._changed:
            self._wake_up(self._clock.now())  # what a lease held that is over waits, too
            self._ready.clear()
            self._delayed.clear()
            self._changed.notify_all()

    def clear(self) -> None:
        """Drops everything, also what is leased: those deliveries become stale."""
        with self._changed:
            self._ready.clear()
            self._delayed.clear()
            self._leased.clear()
            self._keys.clear()
            self._changed.notify_all()

    def holds(self, wanted: Callable[[Message], bool]) -> bool:
        """Whether a message for which `wanted` is true is in here, leased or not."""
        with self._changed:
            entries = [*self._ready, *(e for _, _, e in self._delayed), *self._leased.values()]
            return any(wanted(entry.message) for entry in entries)

    def _lock_key(self, key: str | None, owner: object) -> bool:
        holder, held = self._keys.get(key, (owner, 0))
        if holder is not owner:
            return False
        self._keys[key] = (owner, held + 1)
        return True

    def _release(self, lease: int) -> Entry | None:
        self._wake_up(self._clock.now())
        entry = self._leased.pop(lease, None)
        if entry is not None and self.ordered:
            self._unlock_key(entry.message.key)
        return entry

    def _unlock_key(self, key: str | None) -> None:
        owner, held = self._keys.pop(key)
        if held > 1:  # the owner holds further messages of the key: nobody else may have one
            self._keys[key] = (owner, held - 1)
        else:
            self._changed.notify_all()

    def _put_back(self, entry: Entry, delay: float) -> None:
        if delay > 0:
            heapq.heappush(self._delayed, (self._clock.now() + delay, entry.position, entry))
        else:
            self._insert(entry)

    def _insert(self, entry: Entry) -> None:
        """Back to its original place, so that redelivery keeps the order as far as it can be kept."""
        at = 0
        for other in self._ready:
            if other.position > entry.position:
                break
            at += 1
        self._ready.insert(at, entry)

    def _wake_up(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            self._insert(heapq.heappop(self._delayed)[2])
        if self._next_expiry <= now:
            for lease in [n for n, entry in self._leased.items() if entry.until <= now]:
                entry = self._leased.pop(lease)
                if self.ordered:
                    self._unlock_key(entry.message.key)
                self._insert(entry)
            self._next_expiry = min((e.until for e in self._leased.values()), default=float("inf"))
