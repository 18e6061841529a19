"""Runs handlers whose results are published with their messages' settlement, in one transaction: exactly once."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

from messaging.consumer import Consumer
from messaging.delivery import Delivery
from messaging.errors import ConfigurationError, MessagingError
from messaging.handling import Handling, describe, discard, is_async, log
from messaging.pool import ThreadPool
from messaging.transaction import Transaction

_COMMIT_AFTER = 1.0
"""Seconds of handling after which a transaction is committed, though more was received."""
_PAUSE = 1.0
"""Seconds until it is tried again when the broker was not there."""


class TransactionPool(ThreadPool):
    """One thread receives, handles in order, and commits a batch at a time.

    A handler that raises takes its whole batch back: what others of the batch published is never seen, and they are
    handled again, with the same attempt. The message to blame comes again after the policy's delay, for which all
    wait, so that order is kept; after its last attempt it is dead-lettered in a transaction, like everything here.
    """

    def __init__(self, consumer: Consumer, handling: Handling, name: str) -> None:
        super().__init__(consumer, handling, 1, name)
        self._given_up: dict[str, tuple[int, str, BaseException]] = {}
        """By id: in which attempt, and why."""

    def _handle_here(self) -> None:
        while not self._stopping:
            try:
                delay = self._transact()
            except MessagingError as error:
                if not error.retryable:
                    raise
                log.warning("%s: %s", self._consumer.source, error)
                delay = _PAUSE
            finally:
                with self._changed:
                    self._running = 0
                    self._changed.notify_all()
            if delay:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, delay)

    def _transact(self) -> float:
        """Returns how many seconds to wait before the next one."""
        handled: list[Delivery] = []
        with self._consumer.transaction() as transaction:
            deliveries = transaction.receive(self._consumer.batch, 0.5)
            with self._changed:
                self._running = 1 if deliveries else 0
            began = time.monotonic()
            for number, delivery in enumerate(deliveries):
                if self._stopping or time.monotonic() - began > _COMMIT_AFTER:
                    transaction.give_back(deliveries[number:])
                    break
                delay = self._handle_in(delivery, transaction)
                if delay is not None:
                    transaction.abort(failed=delivery)
                    return delay
                handled.append(delivery)
        rejected = [delivery for delivery in handled if self._given_up.pop(delivery.id, None)]
        self._handling.stats.count(handled=len(handled) - len(rejected), dead_lettered=len(rejected))
        return 0.0

    def _handle_in(self, delivery: Delivery, transaction: Transaction) -> float | None:
        """None: done with, as far as this transaction is. Else the seconds until it is to be tried again."""
        if delivery.id in self._given_up:
            attempt, reason, error = self._given_up[delivery.id]
            if delivery.attempt > attempt:
                delivery.reject(reason, error=error)
                return None
            del self._given_up[delivery.id]  # it went without us, and this is a new one, as after a redrive
        handler: Callable[..., Any] = self._handling.handler
        try:
            result = handler(delivery, transaction)
            if inspect.isawaitable(result):
                discard(result)
                raise TypeError("the handler returned an awaitable: with exactly-once it is a plain function")
        except Exception as error:
            return self._failed(delivery, error)
        return None

    def _failed(self, delivery: Delivery, error: Exception) -> float:
        delay = self._handling.retry.delay_after(delivery.attempt, error, self._handling.outage)
        if delay is None:
            log.error("%r: given up after attempt %d: %s", delivery, delivery.attempt, describe(error))
            self._given_up[delivery.id] = delivery.attempt, describe(error), error
            self._handling.stats.count(failed=1)
            return 0.0
        log.info("%r: failed, again in %.3g s: %s", delivery, delay, describe(error))
        self._handling.stats.count(failed=1, retried=1)
        return delay


def check_handler(handler: Callable[..., Any], concurrency: int) -> None:
    """Raises ConfigurationError for one that cannot run in transactions."""
    if is_async(handler):
        raise ConfigurationError(f"{handler!r}: with delivery='exactly-once' a handler is a plain function, not async")
    if concurrency != 1:
        raise ConfigurationError(
            f"{handler!r}: with delivery='exactly-once' concurrency is 1, not {concurrency}; to go faster start more "
            "workers, up to the number of partitions"
        )
    try:
        inspect.signature(handler).bind(None, None)
    except TypeError:
        raise ConfigurationError(
            f"{handler!r}: with delivery='exactly-once' a handler takes the delivery and the transaction: "
            "def handle(delivery, transaction)"
        ) from None
    except ValueError:
        pass  # something built in, which does not tell
