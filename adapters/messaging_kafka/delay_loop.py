"""The owner thread of one retry topic: a record is handed out once it has waited as long as the topic says."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from messaging.delivery import Delivery

from .group_loop import READY, GroupLoop
from .records import GroupDelivery, attempts_of, due_of
from .tracker import OffsetTracker

MoveOn = Callable[[Delivery, float], bool]
"""Told of a delivery that has waited here and is due at a time (seconds since the epoch) that is still to come.
Returns whether it is copied to the next retry topic; else it waits in the consumer."""


class DelayLoop(GroupLoop):
    """Reads a retry topic. What is not due waits here, unsettled: nothing is committed past it, so that when this
    consumer dies another one has it wait on.

    All records of a partition wait equally long, so the first is due first. A few are read ahead of it; then the
    partition pauses, and others go on. Threads: as `GroupLoop`; `early` may be read by any.
    """

    def __init__(self, seconds: int, move_on: MoveOn, *args: Any) -> None:
        self._seconds = seconds
        self._move_on = move_on
        self._early: dict[int, deque[tuple[float, Delivery]]] = {}
        self.early = 0
        """Records that wait here. They are in `held`, and not in the buffer."""
        super().__init__(*args)
        self._matches = None  # only what its source takes is copied here

    def _step(self) -> None:
        self._release()
        super()._step()

    def _room_in_buffer(self) -> int:
        return READY  # whatever waits there of what another loop reads, and reads faster

    def _active(self) -> int:
        return self.held - self.early

    def _deliveries(self, tracker: OffsetTracker, records: list[Any], offsets: list[int]) -> Sequence[Delivery]:
        early = self._early.setdefault(tracker.partition, deque())
        for record, offset in zip(records, offsets, strict=True):
            delivery = GroupDelivery(self._settler, self._source, record, tracker, offset, attempts_of(record) + 1)
            early.append((self._over(record), delivery))
        self.early += len(records)
        return ()

    def _over(self, record: Any) -> float:
        """When its time in this topic is over: seconds since the epoch."""
        over: float = record.timestamp()[1] / 1000 + self._seconds
        return min(over, due_of(record) or over)

    def _release(self) -> None:
        """Hands out what has waited long enough, or has it wait elsewhere for the rest of its time."""
        now = time.time()
        due: list[Delivery] = []
        for early in self._early.values():
            while early and early[0][0] <= now:
                delivery = early.popleft()[1]
                self.early -= 1
                at = due_of(delivery.native)
                if at <= now:
                    due.append(delivery)
                elif not self._move_on(delivery, at):
                    self._buffer.put_later(delivery, at - now)
        if due:
            self._buffer.put(due)
        if self._gapped:
            self._resume_gapped()

    def _is_full(self, tracker: OffsetTracker, part: int = 1) -> bool:
        early = len(self._early.get(tracker.partition, ()))
        return early >= max(self._ahead // 4 // part, 1) or super()._is_full(tracker, part)

    def _forget(self, partitions: list[int]) -> None:
        for partition in partitions:
            self.early -= len(self._early.pop(partition, ()))
        super()._forget(partitions)
