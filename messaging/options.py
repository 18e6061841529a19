"""What a producer and a consumer can be told, one dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from messaging.errors import ConfigurationError
from messaging.waits import OnWait

Guarantee = Literal["at-least-once", "at-most-once", "exactly-once"]

_LONGEST = 1e9
"""Seconds: 30 years, within what a lock or a condition can wait."""


@dataclass(frozen=True)
class ProducerOptions:
    """timeout: seconds until a publish must be confirmed; then PublishTimeout.

    max_in_flight: messages awaiting confirmation at most. on_full: what a publish does at that mark: wait up to
    `timeout` ("block"), or raise ProducerFull ("raise"). on_wait: told when the producer begins to wait, for this mark,
    for the client's buffer or for the broker, and when that ends.
    """

    timeout: float = 30.0
    max_in_flight: int = 1000
    on_full: Literal["block", "raise"] = "block"
    on_wait: OnWait | None = None

    def __post_init__(self) -> None:
        _check(0 < self.timeout <= _LONGEST, "timeout must be a positive number of seconds", self.timeout)
        _check(self.max_in_flight >= 1, "max_in_flight must be at least 1", self.max_in_flight)
        _check(self.on_full in ("block", "raise"), "on_full must be 'block' or 'raise'", self.on_full)
        check_callback("on_wait", self.on_wait)


@dataclass(frozen=True)
class ConsumerOptions:
    """prefetch: messages delivered or buffered and not yet settled, at most.

    lease: seconds after which an unsettled message is handed to somebody else unless extended; None: the adapter's
    default. Refused where the broker has no leases. heartbeat: extend leases while the consumer lives.
    as_type: what `delivery.value` is decoded to.

    delivery: "at-least-once": settled after handling, so a crash repeats what was being handled. "at-most-once":
    settled before it is handed over, so nothing is ever handled twice and a crash loses what was being handled.
    "exactly-once": settled in a transaction (`Consumer.transaction`) together with what is published in it, where the
    broker has transactions.
    """

    prefetch: int = 200
    lease: float | None = None
    heartbeat: bool = True
    as_type: Any = None
    delivery: Guarantee = "at-least-once"

    def __post_init__(self) -> None:
        _check(self.prefetch >= 1, "prefetch must be at least 1", self.prefetch)
        _check(
            self.lease is None or 0 < self.lease <= _LONGEST, "lease must be a positive number of seconds", self.lease
        )
        known = get_args(Guarantee)
        _check(self.delivery in known, f"delivery must be one of {', '.join(map(repr, known))}", self.delivery)

    @property
    def at_most_once(self) -> bool:
        return self.delivery == "at-most-once"

    @property
    def exactly_once(self) -> bool:
        return self.delivery == "exactly-once"


def check_callback(name: str, value: object) -> None:
    """Raises ConfigurationError."""
    _check(value is None or callable(value), f"{name} must be a function, or left out", value)


def _check(valid: bool, text: str, value: object) -> None:
    if not valid:
        raise ConfigurationError(f"{text}, not {value!r}")
