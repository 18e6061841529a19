"""The records of a share consumer's poll, each a delivery, and where each of them is settled."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

from msgspec import Struct

from messaging.delivery import UNSET, Delivery, Settler
from messaging.message import Message
from messaging.topology import Source

from .records import KafkaDelivery

_holds = Lock()
"""Guards the making of a Hold: no delivery has two."""


class Batch:
    """The records of one poll that are not acknowledged yet. Plays the tracker's part for its deliveries.

    Most are settled in the order they came; `open` is made when one is not, or has to be looked for.

    moving: of which a copy is under way. unheard: those of them that nobody was given. done: those of them that were
    settled since; should the copy fail, so is the original.
    """

    __slots__ = ("_open", "_ordered", "_settled", "alive", "done", "moving", "since", "unheard")

    def __init__(self) -> None:
        self.alive = True
        self.since = time.monotonic()
        self._ordered: list[ShareDelivery] = []
        self._settled = 0
        self._open: dict[tuple[int, int], ShareDelivery] | None = None
        self.moving: set[tuple[int, int]] = set()
        self.unheard: set[tuple[int, int]] = set()
        self.done: set[tuple[int, int]] = set()

    def begin(self, deliveries: list[ShareDelivery]) -> None:
        """They are the records of this poll. The collector cannot see them refer back: each is let go when settled."""
        self._ordered = deliveries

    def __len__(self) -> int:
        return len(self._ordered) - self._settled if self._open is None else len(self._open)

    def settle_next(self, deliveries: list[ShareDelivery]) -> bool:
        """Takes out `deliveries`, if those are the next in order and nothing has to be looked up."""
        if self._open is not None or self._ordered[self._settled : self._settled + len(deliveries)] != deliveries:
            return False
        self._settled += len(deliveries)
        if self._settled == len(self._ordered):
            self._ordered, self._settled = [], 0
        return True

    @property
    def open(self) -> dict[tuple[int, int], ShareDelivery]:
        if self._open is None:
            self._open = {delivery.place: delivery for delivery in self._ordered[self._settled :]}
            self._ordered, self._settled = [], 0
        return self._open

    def end(self) -> None:
        """The rest is somebody else's."""
        self.alive = False
        self.open.clear()


class Hold:
    """Where a record is settled: in its Batch, once it is moved in the tracker of its copy's partition, at `offset`.

    One for all deliveries of the record that this consumer makes, since any of them may be the one that is settled.
    """

    __slots__ = ("offset", "tracker")

    def __init__(self, tracker: Any, offset: int) -> None:
        self.tracker = tracker
        self.offset = offset


class ShareDelivery(KafkaDelivery, Struct, gc=False, eq=False):
    """A record that this consumer holds the lock of. A struct for the same reason as GroupDelivery, see there."""

    settler: Settler
    source: Source
    native: Any
    batch: Batch
    attempt: int = 1
    as_type: Any = None
    _message: Message | None = None
    _value: Any = UNSET
    _settled: bool = False
    _hold: Hold | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the record."""
        return self.native.partition(), self.native.offset()

    @property
    def hold(self) -> Hold:
        """Made when it is asked for, by any thread: few records are moved or delivered again here."""
        if self._hold is None:
            with _holds:
                self._hold = self._hold or Hold(self.batch, self.native.offset())
        return self._hold

    @property
    def tracker(self) -> Any:
        return self.batch if self._hold is None else self._hold.tracker

    @property
    def offset(self) -> int:  # type: ignore[override]
        return self.hold.offset

    def again(self) -> Delivery:
        assert self.hold  # shared with the next one
        return super().again()
