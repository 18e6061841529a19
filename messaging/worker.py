"""Handlers on subscriptions, with retry, concurrency and a graceful end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from messaging.async_pool import AsyncPool
from messaging.broker import Broker
from messaging.consumer import Consumer, close_together
from messaging.errors import Closed, ConfigurationError, UnsupportedCapability
from messaging.handling import Handler, Handling, Stats, is_async
from messaging.pool import ThreadPool
from messaging.pressure_gate import Pressure, PressureGate
from messaging.retry import OUTAGE, RetryPolicy
from messaging.stop_request import StopRequest, stop_signals
from messaging.topology import Destination
from messaging.transaction_pool import TransactionPool, check_handler

H = TypeVar("H", bound=Handler)

_END = 2.0
"""Seconds for idle threads to end once their consumer is closed."""


@dataclass(frozen=True)
class Registration:
    """A handler and what it listens to. `options` are `ConsumerOptions`."""

    destination: str | Destination
    group: str | None
    pattern: str | None
    handling: Handling
    concurrency: int
    options: dict[str, Any]
    pressure: Pressure | None = None

    @property
    def stats(self) -> Stats:
        return self.handling.stats


class Worker:
    """Runs handlers until stopped.

        worker = Worker(broker)

        @worker.on("orders", group="inventory", retry=RetryPolicy(attempts=3), concurrency=8)
        def reserve(delivery): ...

        worker.run()

    A handler gets the `Delivery`. Returning acks it; raising nacks it with the policy's delay, or dead-letters it.
    Up to `concurrency` messages are handled at a time, those of one key one after the other, in order. `async def`
    handlers share an event loop a registration.

    With `delivery="exactly-once"` (where the broker has transactions) a handler gets the transaction too, and what it
    publishes through it is seen together with the settlement of its message, or never:

        @worker.on("orders", group="totals", delivery="exactly-once")
        def total(delivery, transaction):
            transaction.publish("totals", ..., key=delivery.key)

    `run`, `start` and `stop` belong to one thread; `request_stop` may be called from any, and from signal handlers.
    """

    def __init__(self, broker: Broker, *, drain_timeout: float = 30.0) -> None:
        self._broker = broker
        self._drain_timeout = drain_timeout
        self.registrations: list[Registration] = []
        self._pools: list[ThreadPool | AsyncPool] = []
        self._consumers: list[Consumer] = []
        self._gates: list[PressureGate] = []
        self._stop = StopRequest()
        self._subscribing = False
        self._interrupted = False
        self._hurry = False

    def on(
        self,
        destination: str | Destination,
        group: str | None = None,
        *,
        pattern: str | None = None,
        retry: RetryPolicy | None = None,
        concurrency: int = 1,
        pressure: Pressure | None = None,
        **options: Any,
    ) -> Callable[[H], H]:
        """Registers the decorated handler. The broker is first asked in `start`.

        pressure: pauses its consumer while what the handler feeds is under pressure; what was received is handled.

        Raises ConfigurationError, also when `retry` has to keep the order and the destination is not declared ordered.
        """
        if concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {concurrency}")

        def register(handler: H) -> H:
            if options.get("delivery") == "exactly-once":
                check_handler(handler, concurrency)
            is_async(handler)
            handling = Handling(handler, retry or RetryPolicy())
            entry = Registration(destination, group, pattern, handling, concurrency, options, pressure)
            self._check_order(entry)
            self.registrations.append(entry)
            return handler

        return register

    def start(self) -> None:
        """Subscribes every handler and returns.

        Raises what `on` and `Broker.subscribe` raise, and UnsupportedCapability for a retry delay that the broker
        cannot hold, or for delays of an ordered source that it cannot hold together; then nothing runs.
        """
        if self._pools:
            raise ConfigurationError("the worker runs already")
        if not self.registrations:
            raise ConfigurationError("the worker has no handler: register one with @worker.on(...)")
        for entry in self.registrations:
            self._check_order(entry)  # what is declared may have changed since
        try:
            self._subscribing = True
            for number, entry in enumerate(self.registrations):
                consumer = self._broker.subscribe(
                    entry.destination, entry.group, pattern=entry.pattern, **entry.options
                )
                self._consumers.append(consumer)
                retry = entry.handling.retry  # an ordered message keeps its lease, or what stands for it, through all
                consumer.check_delay(retry.total if consumer.source.ordered else retry.longest)
                entry.handling.outage = _longest_in_an_outage(consumer, retry)
                self._pools.append(_pool(consumer, entry, f"worker-{number}"))
                if entry.pressure is not None:
                    self._gates.append(entry.pressure.gate(consumer))
            self._subscribing = False
        except BaseException:
            self._subscribing = False
            self._pools.clear()
            self._close_consumers()
            raise
        for pool in self._pools:
            pool.start()

    def _check_order(self, entry: Registration) -> None:
        if not entry.handling.retry.keep_order:
            return
        name = entry.destination if isinstance(entry.destination, str) else entry.destination.name
        if entry.options.get("delivery") == "at-most-once":
            raise ConfigurationError(
                f"retry on {name!r}: keep_order cannot be had together with delivery='at-most-once', which settles a "
                "message before it is handled, so that one that fails is never tried again: leave out one of them"
            )
        known = self._broker.topology.get(name) if isinstance(entry.destination, str) else entry.destination
        if known is None or not known.ordered:
            raise ConfigurationError(
                f"retry on {name!r}: keep_order needs a destination that is ordered, and this one is "
                f"{'not declared' if known is None else 'declared unordered'}: declare Queue({name!r}, ordered=True) "
                f"or Topic({name!r}, ..., ordered=True) before, or leave out keep_order"
            )

    def run(self) -> None:
        """Starts, then blocks until SIGTERM, SIGINT or `request_stop`, then stops.

        A second SIGINT raises KeyboardInterrupt instead of waiting for handlers. A `request_stop` that came before
        makes it stop at once. Raises what ended a registration, for example DestinationNotFound when its queue was
        deleted.
        """
        self._interrupted = False
        try:
            with stop_signals(self._on_signal):  # from before a handler can run until after the drain
                self.start()
                try:
                    while not self._stop.wait(0.2):
                        if any(pool.error is not None or not pool.alive for pool in self._pools):
                            break
                finally:
                    self.stop()
        finally:
            hurry, self._hurry = self._hurry, False
        self._stop.clear()  # a signal that came during the drain was about this run
        if hurry:
            raise KeyboardInterrupt

    def request_stop(self) -> None:
        """Makes `run` stop. Returns at once."""
        self._stop.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Starts no further message, waits up to `timeout` seconds (`drain_timeout`) for those being handled, closes.

        What was received and not started goes back to the broker. A handler that is still running then is
        cancelled when it is `async`, and can no longer settle when it is not: its message is delivered again.
        Returns whether every handler finished. Raises what ended a registration. Idempotent.
        """
        deadline = time.monotonic() + (self._drain_timeout if timeout is None else timeout)
        pools, self._pools = self._pools, []
        try:
            for pool in pools:
                pool.stop()
            self._close_gates()
            finished = [self._drained(pool, deadline) for pool in pools]
            for pool in pools:
                pool.cancel()
        finally:
            self._close_consumers()
            self._stop.clear()
        for pool in pools:
            pool.finish(_END)
        for pool in pools:
            if pool.error is not None and not isinstance(pool.error, Closed):
                raise pool.error
        return all(finished)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _close_gates(self) -> None:
        gates, self._gates = self._gates, []
        for gate in gates:
            gate.close()

    def _close_consumers(self) -> None:
        self._close_gates()
        consumers, self._consumers = self._consumers, []
        close_together(consumers)

    def _drained(self, pool: ThreadPool | AsyncPool, deadline: float) -> bool:
        while not self._hurry and (remaining := deadline - time.monotonic()) > 0:
            if pool.join(min(remaining, 0.2)):
                return True
        return pool.join(0)

    def _on_signal(self, number: int) -> None:
        # Who presses Ctrl-C twice does not want to wait; a supervisor may well send SIGTERM to process and group.
        if number == signal.SIGINT and self._interrupted:
            if self._subscribing:
                self._subscribing = False  # a third one would cut off the undoing
                self._stop.clear()
                raise KeyboardInterrupt
            self._hurry = True  # raising here would cut off whatever step of the end the main thread is at
        self._interrupted = self._interrupted or number == signal.SIGINT
        self._stop.set()


def _longest_in_an_outage(consumer: Consumer, retry: RetryPolicy) -> float:
    """Seconds that a message is held back while something is down, at most."""
    try:
        consumer.check_delay(OUTAGE)
    except UnsupportedCapability:
        return retry.longest  # which it has said it can
    return OUTAGE


def _pool(consumer: Consumer, entry: Registration, name: str) -> ThreadPool | AsyncPool:
    if consumer.options.exactly_once:
        return TransactionPool(consumer, entry.handling, name)
    kind = AsyncPool if is_async(entry.handling.handler) else ThreadPool
    return kind(consumer, entry.handling, entry.concurrency, name)
