"""What several test packages share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest


def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Waits until `condition()` holds. Fails at the deadline, never earlier."""
    deadline = time.monotonic() + timeout
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        tick.wait(0.001)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., None]:
    return eventually


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Every thread that the test made has ended when it ends."""
    before = set(threading.enumerate())
    yield
    eventually(lambda: set(threading.enumerate()) <= before)
