"""Which orders fail in which group, and how: planned by the order's number, so that every run fails alike.

A failure that passes is retried and then handled. One that does not pass is dead-lettered: a declined card at once,
a bank that never answers after the last attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from messaging.retry import RetryPolicy

GROUPS = ("inventory", "payment", "notification")


class PlannedFailure(Exception):
    """Fails on purpose; another attempt may succeed."""


class CardDeclined(PlannedFailure):
    """Fails on purpose; no further attempt can help, so it is dead-lettered at once."""


POLICY = RetryPolicy(attempts=3, delays=(0.2,), never=(CardDeclined,))
"""The same for every group. One delay only, so that RabbitMQ needs one wait queue a group."""


@dataclass(frozen=True)
class Expected:
    """What the plan makes of the orders in one group."""

    retries: int
    dead_letters: frozenset[int]
    """Their numbers."""


def planned_failure(group: str, number: int, call: int) -> PlannedFailure | None:
    """What goes wrong when `group` handles order `number` for the `call`-th time (1-based), or None."""
    if group == "payment":
        if number % 100 == 7:
            return CardDeclined("card declined (planned)")
        if number % 200 == 150:
            return PlannedFailure("the bank never answers (planned)")
    if call == 1 and _fails_once(group, number):
        return PlannedFailure(f"{group} is busy (planned)")
    return None


def expected(group: str, count: int) -> Expected:
    """What happens in `group` to the orders 1 to `count`."""
    retries, dead = 0, set()
    for number in range(1, count + 1):
        call = 1
        while (failure := planned_failure(group, number, call)) is not None:
            if POLICY.delay_after(call, failure) is None:
                dead.add(number)
                break
            retries += 1
            call += 1
    return Expected(retries, frozenset(dead))


def _fails_once(group: str, number: int) -> bool:
    every, at = {"inventory": (50, 10), "payment": (10, 3), "notification": (25, 5)}[group]
    return number % every == at
