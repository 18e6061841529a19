"""What waits to be sent to one destination, and which of it may go next."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Any

from messaging.driver import Done
from messaging.errors import MessagingError
from messaging_sqs.batch import BATCH

_log = logging.getLogger("messaging.sqs")


class Report:
    """Tells the caller of one `send` to `name` what became of each message. `_lock`: its calls never overlap."""

    __slots__ = ("_done", "_lock", "name")

    def __init__(self, name: str, done: Done) -> None:
        self.name = name
        self._done = done
        self._lock = Lock()

    def __call__(self, index: int, error: MessagingError | None) -> None:
        with self._lock:
            try:
                self._done(index, error)
            except Exception:
                # A caller's mistake must not end the thread that sends for everybody.
                _log.exception("sqs: the callback of a publish failed")


class Pending:
    """One message that is not yet reported. `finished` is guarded by the sender's lock."""

    __slots__ = ("error", "fields", "finished", "group", "index", "report", "size")

    def __init__(self, fields: dict[str, Any], size: int, group: str | None, report: Report, index: int) -> None:
        self.fields = fields
        self.size = size
        self.group = group
        self.report = report
        self.index = index
        self.finished = False
        self.error: MessagingError | None = None


class Lane:
    """The messages for one queue or topic. Every method is called under the sender's lock.

    Standard: any number of batches may be under way. Ordered: a group (key) with a message under way waits, so
    nothing overtakes it; other groups go on.
    """

    def __init__(self, name: str, aws_name: str, topic: bool, ordered: bool, limit: int) -> None:
        self.name = name
        self.aws_name = aws_name
        self.topic = topic
        self.ordered = ordered
        self.limit = limit
        self.resume_at = 0.0
        self.failures = 0
        self.throttled = False
        self.queued = False
        self._groups: dict[str | None, deque[Pending]] = {}
        self._ready: deque[str | None] = deque()

    def put(self, pending: Sequence[Pending]) -> None:
        """Appends `pending`, in order."""
        for message in pending:
            group = self._groups.get(message.group)
            if group is None:
                self._groups[message.group] = group = deque()
                self._ready.append(message.group)
            group.append(message)

    @property
    def ready(self) -> bool:
        """Whether `take` may find something."""
        return bool(self._ready)

    def take(self) -> list[Pending]:
        """Up to 10 messages that fit one call together. `give_back` must be called with them when it is over."""
        batch: list[Pending] = []
        room = self.limit
        while self._ready and len(batch) < BATCH:
            key = self._ready[0]
            group = self._groups[key]
            full = False
            while group and len(batch) < BATCH:
                message = group[0]
                if not message.finished:
                    if message.size > room:
                        full = True
                        break
                    room -= message.size
                    batch.append(message)
                group.popleft()
            if self.ordered or not group:
                self._ready.popleft()
            if not group and not (self.ordered and any(m.group == key for m in batch)):
                del self._groups[key]
            if full:
                if self.ordered and not any(m.group == key for m in batch):
                    self._ready.append(key)
                break
        return batch

    def give_back(self, batch: Sequence[Pending], again: Sequence[Pending]) -> None:
        """Ends what `take` began. `again`: what of it must be sent again, before the rest of its group."""
        if not self.ordered:
            if again:
                if None not in self._groups:
                    self._groups[None] = deque()
                    self._ready.append(None)
                self._groups[None].extendleft(reversed(again))
            return
        for message in reversed(again):
            self._groups[message.group].appendleft(message)
        for key in dict.fromkeys(m.group for m in batch):
            if self._groups[key]:
                self._ready.append(key)
            else:
                del self._groups[key]
