"""When a failed message is tried again, and when it is given up."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from messaging.errors import ConfigurationError, DecodeError, Unavailable

_LONGEST = 1e9
"""Seconds: 30 years. A clock plus a delay stays a number that every broker and timer takes."""

OUTAGE = 30.0
"""Seconds between two attempts during an outage, at most."""


@dataclass(frozen=True)
class RetryPolicy:
    """attempts: how often a message is handled at most, the first time included; then it is dead-lettered.

    delays: seconds before each retry; the last one is used for all further ones. With a `factor` each delay after
    the given ones is that many times the one before, up to `cap` seconds; `jitter` is the part added to a delay
    that is left to chance (0.1: up to 10 % longer, never earlier). never: error types that are dead-lettered at once.
    always: error types that say that something else is down, which is no fault of the message: it is tried again also
    beyond `attempts`, then after 1, 2, 4 ... up to 30 seconds, until the outage ends.

    keep_order: demands that no later message of a key is handled before the failed one succeeded or was dead-lettered.
    Sources declared with `ordered=True` keep that in any case; a `Worker` refuses such a policy on every other.
    """

    attempts: int = 5
    delays: Sequence[float] = (1.0,)
    factor: float = 1.0
    cap: float = 3600.0
    jitter: float = 0.0
    never: tuple[type[BaseException], ...] = (DecodeError,)
    always: tuple[type[BaseException], ...] = (Unavailable,)
    keep_order: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or isinstance(self.attempts, bool) or self.attempts < 1:
            raise ConfigurationError(
                f"RetryPolicy: attempts must be a whole number of at least 1, not {self.attempts!r}"
            )
        if not isinstance(self.delays, Sequence) or not self.delays or not all(map(_is_delay, self.delays)):
            raise ConfigurationError(
                f"RetryPolicy: delays must be one or more seconds from 0 to {_LONGEST:g}, not {self.delays!r}"
            )
        if not (1 <= self.factor < math.inf and 0 <= self.jitter < math.inf and self.cap > 0):
            raise ConfigurationError("RetryPolicy: factor must be at least 1, jitter from 0 on, cap above 0")
        for name, types in (("never", self.never), ("always", self.always)):
            if not isinstance(types, tuple) or not all(map(_is_error_type, types)):
                raise ConfigurationError(f"RetryPolicy: {name} must be a tuple of exception types, not {types!r}")
        if not isinstance(self.keep_order, bool):
            raise ConfigurationError(f"RetryPolicy: keep_order must be True or False, not {self.keep_order!r}")

    @classmethod
    def exponential(
        cls,
        attempts: int = 5,
        first: float = 1.0,
        factor: float = 2.0,
        cap: float = 3600.0,
        jitter: float = 0.1,
        keep_order: bool = False,
    ) -> RetryPolicy:
        """Delays of `first`, `first * factor`, ... seconds, never above `cap`, each with `jitter` on top."""
        return cls(attempts, (first,), factor, cap, jitter, keep_order=keep_order)

    @property
    def longest(self) -> float:
        """Seconds: no delay before one of the `attempts` is longer."""
        last = self.attempts - 1
        if last < 1:
            return 0.0
        return min(max(*self.delays[:last], self._base(last)) * (1 + self.jitter), _LONGEST)

    @property
    def total(self) -> float:
        """Seconds: all delays of this policy together are not longer."""
        total, before = 0.0, -1.0
        for attempt in range(1, self.attempts):
            delay = self._base(attempt) * (1 + self.jitter)
            if attempt > len(self.delays) and delay == before:  # at the cap, or without a factor: so it stays
                total += delay * (self.attempts - attempt)
                break
            total, before = total + delay, delay
            if total >= _LONGEST:
                break
        return min(total, _LONGEST)

    def delay_after(self, attempt: int, error: BaseException, outage: float = OUTAGE) -> float | None:
        """Seconds until the message that failed in `attempt` (1-based) is tried again; None: dead-letter it.

        outage: seconds, the most before an attempt beyond the policy's.
        """
        if isinstance(error, self.never):
            return None
        if attempt < self.attempts:
            return float(min(self._base(attempt) * (1 + self.jitter * random.random()), _LONGEST))
        if isinstance(error, self.always):
            return min(2.0 ** min(attempt - self.attempts, 10), outage)
        return None

    def _base(self, attempt: int) -> float:
        """Without jitter."""
        later = attempt - len(self.delays)
        delay = self.delays[min(attempt, len(self.delays)) - 1]
        if later > 0 and self.factor > 1 and 0 < delay < self.cap:
            try:
                delay = min(delay * self.factor**later, self.cap)
            except OverflowError:
                delay = min(self.cap, _LONGEST)
        return delay


def _is_delay(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _is_error_type(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


NO_RETRY = RetryPolicy(attempts=1, always=())
"""Dead-letter at the first failure."""
