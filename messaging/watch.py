"""A number that is looked at again and again, with a high and a low mark."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from threading import Condition, Thread, current_thread

from messaging.errors import Closed, ConfigurationError

log = logging.getLogger(__name__)


def check_marks(name: str, high: float, low: float, period: float) -> None:
    """Raises ConfigurationError."""
    for what, value in (("high", high), ("low", low), ("period", period)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(f"{name}: {what} must be a number, not {value!r}")
    if not 0 <= low < high < math.inf:
        raise ConfigurationError(
            f"{name}: high must be above low, and neither below 0, not high={high!r}, low={low!r}: "
            f"at high it holds, and at low it lets go"
        )
    if not 0 < period <= 3600:
        raise ConfigurationError(f"{name}: period must be seconds above 0 and at most 3600, not {period!r}")


class Watch:
    """Calls `measure` once a period in a thread of its own, which `close` joins.

    `above`: from when the value has reached `high` until it has come down to `low`. What cannot be measured counts as
    above until it can be again, so `above` is True before the first measurement too. `turned(above)` is called in that
    thread when it changes. `changed` guards all and is notified after each measurement.
    """

    def __init__(
        self,
        name: str,
        measure: Callable[[], float],
        high: float,
        low: float,
        period: float,
        turned: Callable[[bool], None] = lambda _above: None,
    ) -> None:
        self.changed = Condition()
        self.above = True
        self.value: float | None = None
        self.error: Exception | None = None
        self.closed = False
        self._name = name
        self._measure = measure
        self._high = high
        self.low = low
        self._period = period
        self._turned = turned
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops looking. Waits for a measurement that is under way. Idempotent."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        if self._thread is not current_thread():
            self._thread.join()

    def _run(self) -> None:
        told: bool | None = None
        while not self.closed:
            value, error = self._look()
            if isinstance(error, Closed):  # what is measured is gone for good
                with self.changed:
                    self.error, self.value, self.above = error, None, True
                    self.changed.notify_all()
                return
            above = self._is_above(value)
            if above != told:
                told = above
                try:
                    self._turned(above)
                except Closed:
                    return
                except Exception:
                    log.exception("%s: turning failed, it is tried again", self._name)
                    told = None
            with self.changed:
                if error is not None and self.error is None:
                    log.warning("%s: cannot be measured, which counts as above the mark: %r", self._name, error)
                self.value, self.error, self.above = value, error, above
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.closed, self._period)

    def _look(self) -> tuple[float | None, Exception | None]:
        try:
            value = self._measure()
            if not value > -math.inf:
                raise ValueError(f"{value!r} is no measurement")
            return value, None
        except Exception as error:
            return None, error

    def _is_above(self, value: float | None) -> bool:
        if value is None:
            return True
        known = self.value is not None or self.error is not None
        return value > self.low if known and self.above else value >= self._high
