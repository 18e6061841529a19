"""A worker process whose handler always fails, and which kills itself at one step of what follows.

`python -m messaging_contract.faults.victim URL NAME GROUP STEP COUNT ATTEMPTS DELAY`: the worker of NAME (GROUP empty:
a queue) gives every message ATTEMPTS attempts, DELAY seconds apart, and is killed at STEP of its COUNT-th failure. It
prints `handling ID ATTEMPT` when a handler begins, and `settled ID` when a settlement is surely carried out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, get_args

import messaging
from messaging import Delivery, RetryPolicy, Worker
from messaging.driver import Receiver

Step = Literal["handling", "asked", "flushed"]
"""Before anything is done about the failure; once `nack` or `reject` has returned, while the broker may not know of
it; once it is carried out, and `flush` has returned."""


@dataclass(frozen=True)
class Story:
    """What a victim did: (id, attempt) each time a handler began, and the ids whose settlement was carried out."""

    handled: tuple[tuple[str, int], ...]
    settled: tuple[str, ...]


def run(url: str, name: str, group: str, step: Step, count: int, retry: RetryPolicy, timeout: float) -> Story:
    """Runs a victim to its end. Raises AssertionError when it did not kill itself within `timeout` seconds."""
    arguments: Sequence[Any] = (url, name, group, step, count, retry.attempts, retry.delays[0])
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name if __spec__ else __name__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        raise AssertionError(f"no {count} failures within {timeout:g} s; it did: {out!r}, {errors[-2000:]}") from None
    assert process.returncode == -signal.SIGKILL, f"it ended with {process.returncode}: {out!r}, {errors[-2000:]}"
    lines = [line.split() for line in out.splitlines()]
    return Story(
        tuple((words[1], int(words[2])) for words in lines if words[0] == "handling"),
        tuple(words[1] for words in lines if words[0] == "settled"),
    )


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # unbuffered: what was said before the kill is read


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: Sequence[str]) -> None:
    url, name, group, step, count, attempts, delay = arguments
    assert step in get_args(Step), step
    failures, lock = 0, Lock()
    broker = messaging.connect(url)
    options: dict[str, Any] = {"lease": 3.0} if broker.capabilities.lease else {}
    worker = Worker(broker)

    def handle(delivery: Delivery) -> None:
        nonlocal failures
        _say(f"handling {delivery.id} {delivery.attempt}")
        with lock:
            failures += 1
        if step == "handling" and failures >= int(count):
            _die()
        raise RuntimeError("told to fail")

    def dying(settle: Any) -> Any:
        def settle_and_die(delivery: Delivery, *what: Any, **about: Any) -> None:
            settle(delivery, *what, **about)
            if step == "flushed":
                settler = delivery.settler
                assert isinstance(settler, Receiver)
                settler.flush(20.0)
                _say(f"settled {delivery.id}")
            if failures >= int(count):
                _die()

        return settle_and_die

    Delivery.nack = dying(Delivery.nack)  # type: ignore[method-assign]
    Delivery.reject = dying(Delivery.reject)  # type: ignore[method-assign]
    worker.on(name, group or None, retry=RetryPolicy(int(attempts), (float(delay),)), **options)(handle)
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1:])
