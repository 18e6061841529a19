"""Appends of several threads at once: one of them writes for all that wait, so that they wait for the disk together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

from messaging_sql.errors import DatabaseUnavailable
from messaging_sql.event_errors import VersionConflict
from messaging_sql.events import Appended, Expected

_MOST = 64
"""Appends in one transaction, so that it stays short."""


@dataclass(slots=True, eq=False)
class Append:
    """One call of `EventStore.append`. outcome: what it returns or raises. alone: it is not to be put with others."""

    stream: str
    rows: list[dict[str, Any]]
    expected: Expected | int
    outcome: Appended | Exception | None = None
    alone: bool = False


class Turns:
    """Who has the turn writes its own append and those that were waiting. Any thread may use it.

    A commit costs a wait for the disk, however much is in it. So threads that would wait for each other's commits
    share one; a single thread always writes alone.
    """

    def __init__(
        self,
        write_alone: Callable[[Append], Appended],
        write_together: Callable[[Sequence[Append]], Sequence[Appended | VersionConflict]],
    ) -> None:
        self._write_alone = write_alone
        self._write_together = write_together
        self._waiting: deque[Append] = deque()
        self._turn = threading.Lock()

    def append(self, mine: Append) -> Appended:
        """Returns once it is committed, by whichever thread. Raises what the append raises."""
        self._waiting.append(mine)
        try:
            with self._turn:
                while mine.outcome is None and not mine.alone:
                    self._write([self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))])
                if mine.outcome is None:
                    return self._write_alone(mine)
        except BaseException:
            with suppress(ValueError):  # interrupted: nobody is to write it later
                self._waiting.remove(mine)
            raise
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    def _write(self, appends: list[Append]) -> None:
        """Leaves an outcome with each; or with none, and each is written alone by its own thread, in its turn."""
        if len(appends) == 1:
            appends[0].alone = True
            return
        try:
            for append, outcome in zip(appends, self._write_together(appends), strict=True):
                append.outcome = outcome
        except DatabaseUnavailable as error:
            # Perhaps lost in the commit: to write again could be a conflict with oneself.
            for append in appends:
                append.outcome = copy(error)
                append.outcome.__cause__ = error
        except Exception:
            # It was rolled back. One of them is to blame, an event id that is there twice for example, and not all.
            for append in appends:
                append.alone = True
        except BaseException:
            for append in appends:
                append.outcome = DatabaseUnavailable(
                    "the thread that was writing was interrupted: whether these events were written is not known"
                )
            raise
