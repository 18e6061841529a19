"""What a producer and a consumer can be told, one dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from messaging.errors import ConfigurationError

_LONGEST = 1e9
"""Seconds: 30 years, within what a lock or a condition can wait."""


@dataclass(frozen=True)
class ProducerOptions:
    """timeout: seconds until a publish must be confirmed; then PublishTimeout.

    max_in_flight: messages awaiting confirmation at most. on_full: what a publish does at that mark: wait up to
    `timeout` ("block"), or raise ProducerFull ("raise").
    """

    timeout: float = 30.0
    max_in_flight: int = 1000
    on_full: Literal["block", "raise"] = "block"

    def __post_init__(self) -> None:
        _check(0 < self.timeout <= _LONGEST, "timeout must be a positive number of seconds", self.timeout)
        _check(self.max_in_flight >= 1, "max_in_flight must be at least 1", self.max_in_flight)
        _check(self.on_full in ("block", "raise"), "on_full must be 'block' or 'raise'", self.on_full)


@dataclass(frozen=True)
class ConsumerOptions:
    """prefetch: messages delivered or buffered and not yet settled, at most.

    lease: seconds after which an unsettled message is handed to somebody else unless extended; None: the adapter's
    default. Refused where the broker has no leases. heartbeat: extend leases while the consumer lives.
    as_type: what `delivery.value` is decoded to. at_most_once: settle before handing over, so nothing is ever
    handled twice and a crash loses what was being handled.
    """

    prefetch: int = 200
    lease: float | None = None
    heartbeat: bool = True
    as_type: Any = None
    at_most_once: bool = False

    def __post_init__(self) -> None:
        _check(self.prefetch >= 1, "prefetch must be at least 1", self.prefetch)
        _check(
            self.lease is None or 0 < self.lease <= _LONGEST, "lease must be a positive number of seconds", self.lease
        )


def _check(valid: bool, text: str, value: object) -> None:
    if not valid:
        raise ConfigurationError(f"{text}, not {value!r}")
