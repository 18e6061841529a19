"""The oracle of a soak, a few bytes a message: what became of each number, on the sending and on the receiving side.

The words are those of `messaging_contract.ledger`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

_NEVER, _ATTEMPTED, _CONFIRMED, _UNKNOWN, _REFUSED = range(5)
_COUNT, _LATE = 0x7F, 0x80
_GROW = 1 << 16


class Meter:
    """How many, and the longest time without one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last = time.monotonic()
        self.total = 0
        self.stall = 0.0
        """Seconds."""

    def start(self) -> None:
        """The time before this is no stall."""
        with self._lock:
            self._last = time.monotonic()

    def add(self, count: int) -> None:
        if count:
            with self._lock:
                self._close_gap()
                self.total += count

    def stop(self) -> None:
        """A time without one that goes on now counts too."""
        with self._lock:
            self._close_gap()

    def _close_gap(self) -> None:
        now = time.monotonic()
        self.stall = max(self.stall, now - self._last)
        self._last = now


class Published:
    """The messages of one destination, by number. Thread-safe.

    Each of `producers` has every so-manieth number, and `keys` is a multiple of them: the messages of a key come from
    one producer, in the order of their numbers.
    """

    def __init__(self, producers: int, keys: int, confirmed: Meter) -> None:
        if keys % producers:
            raise ValueError(f"{keys} keys cannot be divided over {producers} producers")
        self.producers, self.keys = producers, keys
        self._states = bytearray()
        self._next = list(range(producers))
        self._meter = confirmed
        self._lock = Lock()
        self.confirmed = 0

    def attempt(self, producer: int, count: int) -> Sequence[int]:
        """The next `count` numbers of a producer, noted as attempted."""
        with self._lock:
            first = self._next[producer]
            numbers = range(first, first + count * self.producers, self.producers)
            self._next[producer] = numbers[-1] + self.producers
            while len(self._states) <= numbers[-1]:
                self._states.extend(bytes(_GROW))
            for number in numbers:
                self._states[number] = _ATTEMPTED
        return numbers

    def key(self, number: int) -> int:
        return number % self.keys

    def confirm(self, numbers: Iterable[int]) -> None:
        """The broker has stored these."""
        count = 0
        with self._lock:
            for number in numbers:
                self._states[number] = _CONFIRMED
                count += 1
            self.confirmed += count
        self._meter.add(count)

    def fail(self, number: int, known: bool) -> None:
        """It failed. known: it is certain that it was not stored."""
        with self._lock:
            self._states[number] = _REFUSED if known else _UNKNOWN

    def attempted(self, number: int) -> bool:
        return 0 <= number < len(self._states) and self._states[number] != _NEVER

    def states(self) -> bytes:
        with self._lock:
            return bytes(self._states)


@dataclass(frozen=True)
class Balance:
    """What does not add up for one queue or subscription, as counts; `examples` of what must not be, by word."""

    source: str
    confirmed: int
    received: int
    lost: int
    unexpected: int
    duplicated: int
    reordered: int
    recovered: int
    dead: int
    ordered: bool
    examples: dict[str, list[int]]

    @property
    def upheld(self) -> bool:
        """Whether the guarantee is: nothing lost or unexpected, and in order within each key where that is promised."""
        return not (self.lost or self.unexpected or (self.ordered and self.reordered))


class Received:
    """What one queue or subscription delivered. Thread-safe."""

    def __init__(self, source: str, published: Published, ordered: bool, meter: Meter) -> None:
        self.source, self.published, self.ordered = source, published, ordered
        self._counts = bytearray()
        self._highest = [-1] * published.keys
        self._strangers: list[int] = []
        self._meter = meter
        self._lock = Lock()
        self.distinct = 0
        self.total = 0
        self._dead: set[int] = set()

    def record(self, numbers: Iterable[int]) -> None:
        """These were delivered and are about to be acked. -1: one whose body is not what was published."""
        count = 0
        with self._lock:
            for number in numbers:
                count += 1
                if not self.published.attempted(number):
                    self._strangers.append(number)
                    continue
                while len(self._counts) <= number:
                    self._counts.extend(bytes(_GROW))
                seen = self._counts[number]
                if seen & _COUNT:
                    self._counts[number] = seen & _LATE | min((seen & _COUNT) + 1, _COUNT)
                    continue
                self.distinct += 1
                key = self.published.key(number)
                late = _LATE if number < self._highest[key] else 0
                self._counts[number] = late | 1
                self._highest[key] = max(self._highest[key], number)
            self.total += count
        self._meter.add(count)

    def bury(self, numbers: Iterable[int]) -> None:
        """These are in the dead-letter queue."""
        with self._lock:
            self._dead.update(numbers)

    @property
    def backlog(self) -> int:
        """About how many are confirmed and not received."""
        return self.published.confirmed - self.distinct

    def missing(self) -> int:
        """How many are confirmed and not received."""
        states = self.published.states()
        with self._lock:
            counts = bytes(self._counts).ljust(len(states), b"\0")
        return sum(1 for state, count in zip(states, counts, strict=True) if state == _CONFIRMED and not count)

    def balance(self) -> Balance:
        """The account. Call it when nothing comes any more."""
        states = self.published.states()
        with self._lock:
            counts = bytes(self._counts).ljust(len(states), b"\0")
            examples: dict[str, list[int]] = {"lost": [], "unexpected": self._strangers[:5], "reordered": []}
            lost = duplicated = reordered = recovered = received = 0
            unexpected = len(self._strangers)
            for number, (state, count) in enumerate(zip(states, counts, strict=True)):
                times = count & _COUNT
                received += times > 0
                duplicated += times > 1
                if state == _CONFIRMED and not times and number not in self._dead:
                    lost += 1
                    _keep(examples["lost"], number)
                elif state == _CONFIRMED and count & _LATE:
                    reordered += 1
                    _keep(examples["reordered"], number)
                elif state == _REFUSED and times:
                    unexpected += 1
                    _keep(examples["unexpected"], number)
                elif state in (_UNKNOWN, _ATTEMPTED) and times:
                    recovered += 1
            return Balance(
                self.source,
                self.published.confirmed,
                received,
                lost,
                unexpected,
                duplicated,
                reordered,
                recovered,
                len(self._dead),
                self.ordered,
                {word: numbers for word, numbers in examples.items() if numbers},
            )


def _keep(examples: list[int], number: int) -> None:
    if len(examples) < 5:
        examples.append(number)
