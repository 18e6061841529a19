"""Publishing to the memory broker: at once, or once a full queue has room."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Thread, current_thread

from messaging.driver import Done, Outgoing, Sender
from messaging.errors import Closed, MessagingError, PublishTimeout, Unroutable
from messaging.message import Message
from messaging.options import ProducerOptions
from messaging_memory.server import MemoryServer


@dataclass(slots=True)
class _Waiting:
    index: int
    message: Message
    outgoing: Outgoing
    done: Done
    deadline: float


_Outcome = tuple[Done, int, MessagingError | None]


class MemorySender(Sender):
    """Stores in the caller's thread. What does not fit waits, in order, for a thread that runs while something waits.

    The server's `changed` guards `_waiting` (by destination), `_thread` and `_give_up`; `done` is called without it.
    """

    def __init__(self, server: MemoryServer, options: ProducerOptions) -> None:
        self._server = server
        self._options = options
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._thread: Thread | None = None
        self._give_up = float("inf")

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        deadline = time.monotonic() + self._options.timeout
        line = deque(
            _Waiting(index, replace(message, headers=dict(message.headers)), outgoing, done, deadline)
            for index, message in enumerate(messages)
        )
        changed, name = self._server.changed, outgoing.destination.name
        with changed:
            if self._give_up != float("inf"):
                raise Closed("the producer is closed")
            finished = [] if name in self._waiting else self._store(line)
        _report(finished)
        if line:
            with changed:
                if not self._waiting:
                    self.waits.note("blocked", True, f"a queue is full (capacity {self._server.capacity})")
                self._waiting.setdefault(name, deque()).extend(line)
                if self._thread is None:
                    self._thread = Thread(target=self._drain, name=f"messaging-memory-{name}", daemon=True)
                    self._thread.start()
                changed.notify_all()
            self.waits.tell()

    def close(self, timeout: float) -> None:
        with self._server.changed:
            self._give_up = min(self._give_up, time.monotonic() + timeout)
            self._server.changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not current_thread():
            thread.join()

    def _drain(self) -> None:
        changed = self._server.changed
        while True:
            with changed:
                finished: list[_Outcome] = []
                for name, line in list(self._waiting.items()):
                    finished += self._store(line)
                    if not line:
                        del self._waiting[name]
                        if not self._waiting:
                            self.waits.note("blocked", False)
                if not finished:
                    if not self._waiting:
                        self._thread = None
                        return
                    due = min(self._deadline(line[0]) for line in self._waiting.values())
                    changed.wait(max(due - time.monotonic(), 0.0))
            self.waits.tell()
            _report(finished)

    def _store(self, line: deque[_Waiting]) -> list[_Outcome]:
        """Takes from the front of `line` what has an outcome by now. The caller holds `changed`."""
        finished: list[_Outcome] = []
        while line:
            first = line[0]
            name = first.outgoing.destination.name
            error: MessagingError | None = None
            try:
                first.message.timestamp = round(first.message.timestamp, 3)
                copies = self._server.publish(
                    first.outgoing.destination, first.message, first.outgoing.delay, first.outgoing.only
                )
                if copies is None:
                    if time.monotonic() < self._deadline(first):
                        break
                    error = PublishTimeout(f"publish to {name!r}: a queue is full (capacity {self._server.capacity})")
                elif first.outgoing.mandatory and not copies:
                    error = Unroutable(f"publish to {name!r}: no subscription takes type {first.message.type!r}")
            except MessagingError as failure:
                error = failure
            line.popleft()
            finished.append((first.done, first.index, error))
        return finished

    def _deadline(self, waiting: _Waiting) -> float:
        return min(waiting.deadline, self._give_up)


def _report(finished: list[_Outcome]) -> None:
    for done, index, error in finished:
        done(index, error)
