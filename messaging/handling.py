"""What becomes of one delivery: the handler is called, and its outcome is the settlement. Exactly one settlement."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from messaging.delivery import Delivery
from messaging.errors import Closed, ConfigurationError
from messaging.retry import OUTAGE, RetryPolicy

log = logging.getLogger("messaging.worker")

Handler = Callable[..., Any]
"""Takes the delivery; with `delivery="exactly-once"` also the transaction to publish in."""

_REMEMBERED = 10_000
"""Failed messages whose first failure is remembered."""


@dataclass
class Stats:
    """What a registration did so far. `_lock` guards the counts; reading one needs no lock."""

    handled: int = 0
    failed: int = 0
    retried: int = 0
    dead_lettered: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    def count(self, **changes: int) -> None:
        with self._lock:
            for name, change in changes.items():
                setattr(self, name, getattr(self, name) + change)

    def count_handled(self) -> None:
        with self._lock:
            self.handled += 1


class Handling:
    """Calls one handler under one retry policy. Any thread may call it; the handler must be as thread-safe as its
    concurrency demands.

    The handler may settle the delivery itself; then nothing more is done. When it returns, the delivery is acked;
    when it raises an `Exception`, it is nacked with the policy's delay or rejected. Anything else that is raised
    (cancellation, KeyboardInterrupt, SystemExit) settles nothing: the message is delivered again.
    """

    def __init__(self, handler: Handler, retry: RetryPolicy) -> None:
        self.handler = handler
        self.retry = retry
        self.outage = OUTAGE
        """Seconds between two attempts while something else is down, at most."""
        self.stats = Stats()
        self._failed_first: dict[str, float] = {}
        """When a message that is being retried failed first, by id. Its operations are atomic."""

    def run(self, delivery: Delivery) -> None:
        """For a plain function."""
        try:
            result = self.handler(delivery)
            if inspect.isawaitable(result):  # nothing was handled yet: to ack it would lose the message
                discard(result)
                raise TypeError("the handler returned an awaitable: register an `async def` function instead")
        except Exception as error:
            self._failed(delivery, error)
        else:
            self._succeeded(delivery)

    async def run_async(self, delivery: Delivery) -> None:
        """For an `async def` function, on its event loop. Settling does not block, so it happens on the loop."""
        try:
            await self.handler(delivery)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(delivery, error)  # something that the handler awaited was cancelled, not the handler
        except Exception as error:
            self._failed(delivery, error)
        else:
            self._succeeded(delivery)

    def _succeeded(self, delivery: Delivery) -> None:
        self.stats.count_handled()
        if self._failed_first:
            self._failed_first.pop(delivery.id, None)
        try:
            delivery.ack()
        except Closed:
            log.warning("%r was handled after its consumer closed; it will be delivered again", delivery)

    def _failed(self, delivery: Delivery, error: BaseException) -> None:
        delay = self.retry.delay_after(delivery.attempt, error, self.outage)
        reason = describe(error)
        first = self._first_failure(delivery)
        try:
            if delivery.settled:
                log.exception("%r: the handler settled it, then failed", delivery)
                self.stats.count(failed=1)
            elif delay is None:
                log.error("%r: given up after attempt %d: %s", delivery, delivery.attempt, reason)
                delivery.reject(reason, error=error, first_failure=first)
                self._failed_first.pop(delivery.id, None)
                self.stats.count(failed=1, dead_lettered=1)
            else:
                log.info("%r: failed, again in %.3g s: %s", delivery, delay, reason)
                delivery.nack(delay)
                self.stats.count(failed=1, retried=1)
        except Closed:
            log.warning("%r failed after its consumer closed; it will be delivered again: %s", delivery, reason)

    def _first_failure(self, delivery: Delivery) -> float | None:
        """Seconds since the epoch; None when an earlier attempt failed elsewhere, or too many failed since."""
        known = self._failed_first
        if delivery.attempt == 1:
            known[delivery.id] = time.time()
            if len(known) > _REMEMBERED:
                known.pop(next(iter(known)), None)
        return known.get(delivery.id)


def is_async(handler: Handler) -> bool:
    """Whether it is to be awaited. Raises ConfigurationError for a generator: calling it would run nothing."""
    called = getattr(handler, "__call__", None)  # noqa: B004 - an object with `async def __call__`
    for function in (handler, called):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{handler!r} contains a yield: a handler handles one delivery and returns")
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)


def describe(error: BaseException) -> str:
    """Its type and what it says, in a line."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # a __str__ that fails must not take the worker down
        return type(error).__name__


def discard(awaitable: Any) -> None:
    """Nobody is going to await it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
