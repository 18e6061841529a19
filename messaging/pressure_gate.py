"""A consumer that pauses while what it feeds is under pressure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from messaging.consumer import Consumer
from messaging.errors import Closed, ConfigurationError
from messaging.options import check_callback
from messaging.waits import OnWait, Waits
from messaging.watch import Watch, check_marks


@dataclass(frozen=True)
class Pressure:
    """What a `PressureGate` goes by, for `Worker.on`: its arguments. Raises ConfigurationError for wrong ones."""

    measure: Callable[[], float]
    high: float
    low: float
    period: float = 0.2
    on_wait: OnWait | None = None

    def __post_init__(self) -> None:
        check_marks("pressure", self.high, self.low, self.period)
        check_callback("on_wait", self.on_wait)
        if not callable(self.measure):
            raise ConfigurationError(f"pressure must be a function that returns a number, not {self.measure!r}")

    def gate(self, consumer: Consumer) -> PressureGate:
        """A gate before `consumer`, to be closed by the caller."""
        return PressureGate(
            consumer, self.measure, high=self.high, low=self.low, period=self.period, on_wait=self.on_wait
        )


class PressureGate:
    """Pauses `consumer` from when `pressure()` has reached `high` until it has come down to `low`.

        with PressureGate(consumer, lambda: pool.queued, high=100, low=20):
            for delivery in consumer: ...

    pressure: any number of what is downstream: rows queued, connections in use, milliseconds. It is asked once a
    `period` (seconds) in a thread of the gate's own, which `close` joins, so it must return soon. When it raises, or
    gives no number, that is logged and counts as pressure: the consumer stays paused until it is known again.

    Leases, heartbeats and group membership go on, and what was received may be settled: see `Consumer.pause`. The
    gate's pause and the program's own are two: the consumer goes on when neither holds it. on_wait: told when it pauses
    and resumes (reason "pressure").

    Raises ConfigurationError for wrong marks. `close` resumes what the gate has paused, and belongs before the
    consumer's own.
    """

    def __init__(
        self,
        consumer: Consumer,
        pressure: Callable[[], float],
        *,
        high: float,
        low: float,
        period: float = 0.2,
        on_wait: OnWait | None = None,
    ) -> None:
        Pressure(pressure, high, low, period, on_wait)  # checks them
        self._consumer = consumer
        self._waits = Waits(on_wait)
        self._paused = False
        self._watch = Watch(f"pressure-on-{consumer.source}", pressure, high, low, period, self._turn)

    @property
    def paused(self) -> bool:
        """Whether the gate has paused the consumer."""
        return self._paused

    @property
    def waits(self) -> Mapping[str, int]:
        """How often it paused: {"pressure": 3}."""
        return self._waits.counts

    @property
    def waited_seconds(self) -> Mapping[str, float]:
        """For how long: {"pressure": 4.2}."""
        return self._waits.seconds

    def close(self) -> None:
        """Stops watching and resumes the consumer. Joins its thread, also while that asks `pressure`. Idempotent."""
        self._watch.close()
        try:
            self._turn(False)
        except Closed:
            self._waits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _turn(self, above: bool) -> None:
        """In the watch's thread, and in `close` after that has ended."""
        if above and not self._paused:
            self._consumer.hold(self)
            self._paused = True
            self._waits.begin("pressure", str(self._consumer.source))
        elif not above and self._paused:
            self._consumer.let_go(self)
            self._paused = False
            self._waits.end("pressure")
