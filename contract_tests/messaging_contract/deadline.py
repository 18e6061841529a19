"""Bounds on what may hang: a call in a thread of its own, left behind when it does not end, and a way out of a process.

A thread that hangs in C code which let go of the GIL is left behind like any other. One that holds the GIL stops every
thread, so that nothing in Python can notice: the watchdog, which is not in Python, ends the process then.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_STDERR = os.fdopen(os.dup(2), "w")
"""Where the terminal is, also while pytest captures what is written to stderr."""

hung: list[str] = []
"""What is still hanging in a thread that was left behind. The process cannot wait for it when it ends."""


class Hanging(AssertionError):
    """Something that did not end by its deadline."""


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Calls in a thread of its own; one that hangs is left behind (daemon), with its stack in the error.

    Raises what it raised, and Hanging after `seconds`.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def target() -> None:
        try:
            returned.append(call())
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=target, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        hung.append(what)
        frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        raise Hanging(f"{what} hangs: not done after {seconds:g} s\n{stack}")
    if raised:
        raise raised[0]
    return returned[0]


@contextmanager
def watchdog(seconds: float, stacks: Path | None) -> Iterator[None]:
    """Ends the process with status 1 after `seconds`, and writes where each thread was to `stacks`, or to stderr."""
    if stacks is None:
        _arm(seconds, _STDERR)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
        return
    with stacks.open("w") as file:
        _arm(seconds, file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _arm(seconds: float, file: object) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)  # type: ignore[arg-type]
