"""Which offsets of one partition are settled, and how far its position may be committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from itertools import islice

from confluent_kafka import TopicPartition

from .settled_ahead import decode


class OffsetTracker:
    """The contiguous watermark of one partition, for one assignment of it. Not thread-safe: the owner thread's.

    Kafka keeps a single position a partition, so a message may be committed only when every one before it is
    settled; those `ahead` of it are written beside it. Offsets are added in rising order and may have gaps (compaction,
    transaction markers). `drop` ends it: from then on nothing counts any more, which makes acks from before a rebalance
    harmless.
    """

    __slots__ = (
        "_ahead",
        "_known",
        "_pending",
        "_sent",
        "alive",
        "changes",
        "committed",
        "confirmed",
        "last",
        "partition",
        "requested",
    )

    def __init__(self, partition: int, position: int = -1, known: Iterable[int] = ()) -> None:
        """known: offsets above the group's `position` that are settled, though not here."""
        self.partition = partition
        self.alive = True
        self.last = -1
        """The highest offset seen, -1 before the first."""
        self.committed = position
        """The position that the broker last confirmed; where reading began, before the first commit."""
        self.changes = self.requested = self.confirmed = 0
        """How often what is to be committed changed: until now, in the newest commit on its way, in one confirmed."""
        self._sent: dict[tuple[int, str | None], int] = {}
        self._pending: deque[int] = deque()
        self._ahead: set[int] = set()
        self._known = set(known)

    @classmethod
    def of(cls, position: TopicPartition) -> OffsetTracker:
        """One that begins at the group's position."""
        return cls(position.partition, position.offset, decode(position.metadata, position.offset))

    def begin(self, offset: int) -> None:
        """Reading begins at `offset`, so that far everything is committed."""
        if offset < self.committed:
            self._known.clear()  # the log is not the one that they were settled in
        self.committed = offset

    def settled_before(self, offsets: list[int]) -> list[int]:
        """Those of `offsets`, just added, that were settled before this assignment began. It tells each once."""
        if not self._known:
            return []
        before = [offset for offset in offsets if offset in self._known]
        self._known = {offset for offset in self._known if offset > self.last}
        return before

    @property
    def ahead(self) -> set[int]:
        """What is settled above the watermark."""
        return self._ahead | self._known

    def sent(self, position: TopicPartition) -> None:
        """A commit of it is on its way, which is everything until now."""
        self.requested = self.changes
        self._sent[position.offset, position.metadata] = self.changes

    def answered(self, position: TopicPartition, confirmed: bool) -> None:
        """The broker took a commit of it, or did not: then it is to be sent again."""
        changes = self._sent.pop((position.offset, position.metadata), None)
        if changes is None:
            return  # of an earlier assignment
        if confirmed:
            self.committed = max(self.committed, position.offset)
            self.confirmed = max(self.confirmed, changes)
        else:
            self.requested = self.confirmed

    def add(self, offsets: list[int]) -> None:
        """Messages to be settled. Offsets must rise; the caller checks `last` (hot path)."""
        self._pending.extend(offsets)
        self.last = offsets[-1]

    def done(self, offsets: list[int]) -> int:
        """`offsets`, once added, are settled. Returns how many of them were news."""
        pending, count = self._pending, len(offsets)
        # What is read is mostly settled in the order it was read, and then no offset needs a look of its own.
        if not self._ahead and list(islice(pending, count)) == offsets:
            for _ in range(count):
                pending.popleft()
        else:
            count = sum(map(self._done, offsets))
        self.changes += count
        return count

    def _done(self, offset: int) -> bool:
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

    @property
    def watermark(self) -> int:
        """The position to commit: everything below it is settled. -1 when nothing was added yet."""
        return self._pending[0] if self._pending else self.last + 1 if self.last >= 0 else -1

    def position_after(self, offsets: Collection[int]) -> int:
        """What `watermark` is once `offsets` are settled too."""
        for offset in self._pending:
            if offset not in offsets and offset not in self._ahead:
                return offset
        return self.last + 1 if self.last >= 0 else -1

    def reach(self, offset: int) -> None:
        """The next message will be at `offset` or above: what is between is no message (transaction markers)."""
        if offset - 1 > self.last:
            if self.last < 0 and offset < self.committed:
                self._known.clear()  # as in `begin`
            self.last = offset - 1
            self.changes += 1

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
        self._known.clear()
        self._sent.clear()
        return unsettled
