"""How a loop that blocks is asked to stop, also from a signal handler."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType


class StopRequest:
    """A `threading.Event` that a signal handler may set.

    Python runs signal handlers in the main thread, between any two steps of what that does. `Event.set` there waits for
    ever when the main thread was inside `Event.wait` and held the event's lock; `SimpleQueue.put` is reentrant by
    contract (https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put).

    `set` may be called from any thread; `wait` and `clear` belong to one.
    """

    def __init__(self) -> None:
        self._set = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        self._set = True
        self._wake.put(None)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float) -> bool:
        """Whether it is set, after at most `timeout` seconds."""
        if not self._set:
            try:
                self._wake.get(timeout=timeout)
            except Empty:
                pass
        return self._set


@contextmanager
def stop_signals(act: Callable[[int], None]) -> Iterator[None]:
    """Meanwhile SIGTERM and SIGINT call `act` with their number. In another thread than the main one: nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        act(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
