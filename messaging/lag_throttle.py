"""Producers that are held while a subscription falls behind."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import Any, Self, Unpack

from messaging.broker import Broker
from messaging.errors import Closed, ConfigurationError, MessagingError, ProducerHeld
from messaging.message import MessageFields
from messaging.options import check_callback
from messaging.producer import Producer
from messaging.topology import Destination
from messaging.waits import OnWait, Waits
from messaging.watch import Watch, check_marks


class LagThrottle:
    """Holds producers from when a queue or subscription has `high` messages waiting until it is down to `low`.

        with LagThrottle(broker, "orders", "inventory", high=10_000, low=2_000) as throttle:
            throttle.publish("orders", order)

    The lag is `Broker.depth`, learned once a `period` (seconds) in a thread of its own that `close` joins; nobody joins
    the group for it. Where the broker tells that apart, what is handed out and unsettled is not in it. What is
    published in one period may go over the mark. While the lag cannot be learned it holds: who cannot see the backlog
    must not add to it. So it does until the lag is known for the first time.

    timeout: seconds that a call is held at most; then ProducerHeld. producer: what publishes, the broker's own when
    None. on_wait: told when it begins to hold somebody and when nobody is held any more (reason "lag").

    Every method may be called from any thread. Raises ConfigurationError for wrong marks, TopologyError for a queue or
    subscription that is not declared.
    """

    def __init__(
        self,
        broker: Broker,
        destination: str | Destination,
        group: str | None = None,
        *,
        high: float,
        low: float,
        period: float = 1.0,
        timeout: float = 30.0,
        producer: Producer | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        check_marks("LagThrottle", high, low, period)
        check_callback("on_wait", on_wait)
        if not timeout > 0:
            raise ConfigurationError(f"LagThrottle: timeout must be a positive number of seconds, not {timeout!r}")
        self._source = broker.source(destination, group)
        self._publisher: Broker | Producer = producer or broker
        self._timeout = timeout
        self._waits = Waits(on_wait)
        self._watch = Watch(
            f"lag-of-{self._source}", lambda: float(broker.depth(destination, group)), high, low, period
        )

    @property
    def held(self) -> bool:
        """Whether it holds now."""
        return self._watch.above

    @property
    def lag(self) -> int | None:
        """What was learned last; None when it could not be learned."""
        value = self._watch.value
        return None if value is None else int(value)

    @property
    def waits(self) -> Mapping[str, int]:
        """How often somebody was held: {"lag": 3}."""
        return self._waits.counts

    @property
    def waited_seconds(self) -> Mapping[str, float]:
        """For how long: {"lag": 4.2}."""
        return self._waits.seconds

    def wait(self, timeout: float | None = None) -> None:
        """Returns at once unless it holds; else when it lets go.

        Raises ProducerHeld after `timeout` seconds (None: the throttle's), Closed when it is or gets closed, and what
        keeps the lag from being learned when waiting does not help (DestinationNotFound, AuthenticationFailed).
        """
        watch = self._watch
        if not (watch.above or watch.closed):
            return
        limit = min(self._timeout if timeout is None else timeout, TIMEOUT_MAX)
        with self._waits.during("lag", str(self._source)), watch.changed:
            watch.changed.wait_for(lambda: not watch.above or watch.closed or self._hopeless(), max(limit, 0.0))
            self._check(limit)

    def publish(
        self,
        destination: str | Destination,
        value: Any,
        *,
        delay: float = 0.0,
        mandatory: bool = False,
        timeout: float | None = None,
        **fields: Unpack[MessageFields],
    ) -> str:
        """`wait`, then `Producer.publish`. timeout: seconds for both; None: each has its own."""
        left = self._wait_first(timeout)
        return self._publisher.publish(destination, value, delay=delay, mandatory=mandatory, timeout=left, **fields)

    def publish_nowait(
        self,
        destination: str | Destination,
        value: Any,
        *,
        delay: float = 0.0,
        mandatory: bool = False,
        **fields: Unpack[MessageFields],
    ) -> Future[str]:
        """`wait`, then `Producer.publish_nowait`."""
        self.wait()
        return self._publisher.publish_nowait(destination, value, delay=delay, mandatory=mandatory, **fields)

    def publish_many(
        self, destination: str | Destination, items: Iterable[Any], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[str]:
        """`wait`, then `Producer.publish_many`: all of them. timeout: as with `publish`."""
        left = self._wait_first(timeout)
        return self._publisher.publish_many(destination, items, delay=delay, timeout=left)

    def close(self) -> None:
        """Lets go of nobody: who is held gets Closed. Joins its thread, also while that asks the broker. Idempotent."""
        self._watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_first(self, timeout: float | None) -> float | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        self.wait(timeout)
        return None if deadline is None else deadline - time.monotonic()

    def _hopeless(self) -> bool:
        error = self._watch.error
        return isinstance(error, MessagingError) and not error.retryable

    def _check(self, limit: float) -> None:
        watch = self._watch
        if watch.closed:
            raise Closed(f"publish: the throttle on {self._source} is closed; nothing was sent")
        if not watch.above:
            return
        if watch.error is not None and self._hopeless():
            raise type(watch.error)(f"publish: held by the lag of {self._source}: {watch.error}") from watch.error
        why = f"its lag is {self.lag}" if watch.value is not None else "its lag is not known yet"
        if watch.error is not None:
            why = f"its lag cannot be learned: {watch.error}"
        raise ProducerHeld(
            f"publish: held for {limit:g} s by the lag of {self._source} ({why}, it has to come down to "
            f"{watch.low:g}); nothing was sent: try again later, or add consumers"
        ) from watch.error
