"""A process killed at each step of a transaction, again and again: each result is there exactly once, in order.

MESSAGING_CRASHES says how often each step is killed, 1 unless told.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from messaging import Broker, Message

from . import copier
from .cluster import one_partition, take

Connect = Callable[..., Broker]

_CRASHES = int(os.environ.get("MESSAGING_CRASHES", "1"))
_COUNT = 40
"""Messages of a topic, more than the victims of all steps handle."""
_AT_A_TIME = 6


@pytest.mark.timeout(240 + 60 * _CRASHES)
def test_killed_at_each_step(connect: Connect, name: str, url: str) -> None:
    """Each of several topics is copied by a process that is killed at a step, then by one killed at the next."""
    names = [(f"{name}-{n}", f"{name}-{n}-copied") for n in range(_CRASHES)]
    topics = [topic for source, target in names for topic in (one_partition(source), one_partition(target, "reader"))]
    broker = connect(*topics)
    for source, _ in names:
        broker.publish_many(source, [Message.of(n, key="k") for n in range(_COUNT)])

    def copy(both: tuple[str, str]) -> None:
        for step in (*copier.STEPS, "finish"):
            process = copier.start(url, *both, step)  # type: ignore[arg-type]
            try:
                _, errors = process.communicate(timeout=180)
            finally:
                process.kill()
            expected = 0 if step == "finish" else -signal.SIGKILL
            assert process.returncode == expected, f"at {step!r} it ended with {process.returncode}: {errors[-3000:]}"

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(copy, names))
    for source, target in names:
        assert broker.depth(source, "g") == 0
        with broker.subscribe(target, "reader") as reader:
            found = take(reader, _COUNT, 60)
            assert [delivery.value for delivery in found] == list(range(_COUNT))
            assert reader.receive(1, 1.0) == [], "more results than messages"
