"""Waiting for what an owner thread was asked to do."""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

_LOOK = 0.2
"""Seconds after which whoever waits looks whether there still is a thread to wait for."""


def answer(future: Future[T], timeout: float, owner: Thread) -> T:
    """The result of `future`. Raises TimeoutError: not done within `timeout` seconds, or `owner` has ended."""
    deadline = time.monotonic() + timeout
    while not future.done() and (left := deadline - time.monotonic()) > 0:
        wait([future], min(left, _LOOK))
        if not owner.is_alive():
            break
    if not future.done():
        raise TimeoutError
    return future.result()
