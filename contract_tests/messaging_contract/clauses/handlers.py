"""What clauses about workers share: a handler that fails as told, and a worker for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any

from messaging import Delivery, RetryPolicy, Worker
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.ledger import Ledger

AT_ONCE = RetryPolicy(attempts=4, delays=(0.0,))


class Failing:
    """A handler that notes its calls and fails as told. `_lock` guards the notes."""

    def __init__(
        self, ledger: Ledger, fails: Callable[[Delivery], bool], error: type[Exception] = RuntimeError
    ) -> None:
        self._ledger = ledger
        self._fails = fails
        self._error = error
        self._lock = Lock()
        self.attempts: dict[str, list[int]] = {}
        self.times: dict[str, list[float]] = {}
        self.done: Counter[str] = Counter()

    def __call__(self, delivery: Delivery) -> None:
        with self._lock:
            self.attempts.setdefault(delivery.id, []).append(delivery.attempt)
            self.times.setdefault(delivery.id, []).append(time.monotonic())
            if self._fails(delivery):
                raise self._error("told to fail")
            self.done[delivery.id] += 1
            self._ledger.receive([delivery])


def worker_for(bench: Bench, source: Source, handler: Any, **options: Any) -> Worker:
    """Retries at once unless told: not every broker can delay."""
    worker = Worker(bench.broker)
    worker.on(source.destination, source.group, **{"retry": AT_ONCE, **options})(handler)
    return worker
