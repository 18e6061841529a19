"""Which offsets of one partition are settled, and how far its position may be committed."""

from __future__ import annotations

from collections import deque
from itertools import islice


class OffsetTracker:
    """The contiguous watermark of one partition, for one assignment of it. Not thread-safe: the owner thread's.

    Kafka keeps a single position a partition, so a message may be committed only when every one before it is
    settled. Offsets are added in rising order and may have gaps (compaction, transaction markers). `drop` ends it:
    from then on nothing counts any more, which makes acks from before a rebalance harmless.
    """

    __slots__ = ("_ahead", "_pending", "alive", "committed", "last", "partition", "requested")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.alive = True
        self.last = -1
        """The highest offset seen, -1 before the first."""
        self.committed = -1
        """The position that the broker last confirmed; where reading began, before the first commit."""
        self.requested = -1
        """The position of the newest commit on its way."""
        self._pending: deque[int] = deque()
        self._ahead: set[int] = set()

    def begin(self, offset: int) -> None:
        """Reading begins at `offset`, so that far everything is committed."""
        self.committed = self.requested = offset

    def add(self, offset: int) -> None:
        """A message to be settled. Offsets must rise; the caller checks `last` (hot path)."""
        self._pending.append(offset)
        self.last = offset

    def skip(self, offset: int) -> None:
        """A message that is nobody's business: settled as it comes."""
        self._pending.append(offset)
        self.last = offset
        self.done(offset)

    def done(self, offset: int) -> bool:
        """`offset`, once added, is settled. Returns whether that was news."""
        pending = self._pending
        if not pending:
            return False
        first = pending[0]
        if offset == first:
            pending.popleft()
            ahead = self._ahead
            while ahead and pending and pending[0] in ahead:
                ahead.remove(pending.popleft())
            return True
        if offset < first or offset > self.last or offset in self._ahead:
            return False
        self._ahead.add(offset)
        return True

    def done_many(self, offsets: list[int]) -> int:
        """Several are settled. Returns how many of them were news."""
        pending, count = self._pending, len(offsets)
        # What is read is mostly settled in the order it was read, and then no offset needs a look of its own.
        if not self._ahead and count <= len(pending) and list(islice(pending, count)) == offsets:
            for _ in range(count):
                pending.popleft()
            return count
        return sum(map(self.done, offsets))

    @property
    def watermark(self) -> int:
        """The position to commit: everything below it is settled. -1 when nothing was added yet."""
        return self._pending[0] if self._pending else self.last + 1 if self.last >= 0 else -1

    @property
    def unsettled(self) -> int:
        return len(self._pending) - len(self._ahead)

    @property
    def span(self) -> int:
        """How many offsets it remembers: the distance between the watermark and the newest message."""
        return len(self._pending)

    def drop(self) -> int:
        """Forgets everything, for good. Returns how many were unsettled."""
        unsettled = self.unsettled
        self.alive = False
        self._pending.clear()
        self._ahead.clear()
        return unsettled
