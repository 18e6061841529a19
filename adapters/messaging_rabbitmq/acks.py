"""Which deliveries of a channel are settled, and the fewest acks that say so."""

from __future__ import annotations

from collections.abc import Iterable


class TagWindow:
    """The delivery tags of one channel, which count from 1. Only the I/O thread uses it.

    Everything below `_low` is settled, and of the rest what is in `_done`.
    """

    def __init__(self) -> None:
        self._low = 1
        self._high = 0
        self._done: set[int] = set()

    @property
    def unsettled(self) -> int:
        """Delivered and not yet settled at the broker."""
        return self._high - self._low + 1 - len(self._done)

    @property
    def last(self) -> int:
        """The highest tag so far."""
        return self._high

    def unsettled_up_to(self, tag: int) -> int:
        """Of the deliveries up to `tag`, how many are not yet settled."""
        return max(tag - self._low + 1, 0) - sum(done <= tag for done in self._done)

    def delivered(self, tag: int) -> None:
        """The broker delivered `tag`, the highest so far."""
        self._high = tag

    def settle(self, tag: int) -> bool:
        """`tag` is settled on its own. False when it already was."""
        if tag < self._low or tag in self._done or tag > self._high:
            return False
        self._done.add(tag)
        self._advance()
        return True

    def ack(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """The acks to send for `tags`: (tag, multiple). One ack stands for all up to the first one still open."""
        fresh = {tag for tag in tags if self._low <= tag <= self._high} - self._done
        low, last, count = self._low, 0, 0
        while True:
            if low in fresh:
                last = low
                count += 1
            elif low in self._done:
                self._done.discard(low)
            else:
                break
            low += 1
        self._low = low
        acks = [(last, count > 1)] if last else []
        if len(fresh) > count:
            apart = sorted(tag for tag in fresh if tag >= low)
            self._done.update(apart)
            acks += [(tag, False) for tag in apart]
        return acks

    def _advance(self) -> None:
        while self._low in self._done:
            self._done.discard(self._low)
            self._low += 1
