"""What a run of the pipeline came to: numbers a group, and whether the ledger balances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from messaging.demo.ledger import GroupLedger
from messaging.demo.orders import order_id
from messaging.demo.plan import Expected

_SHOWN = 5
"""Ids named in a problem, at most."""


@dataclass(frozen=True)
class GroupProgress:
    group: str
    handled: int
    dead_lettered: int
    retried: int

    @property
    def done(self) -> int:
        return self.handled + self.dead_lettered


@dataclass(frozen=True)
class Progress:
    """Where a run is: orders in all, confirmed by the broker, and the groups."""

    orders: int
    published: int
    groups: Sequence[GroupProgress]


@dataclass(frozen=True)
class GroupReport:
    """received: distinct orders. retried: times the policy sent one round again. dead_letters: read back from the
    dead-letter queue. per_second: orders done a second, from the first publish to the group's last order."""

    group: str
    received: int
    handled: int
    retried: int
    dead_lettered: int
    duplicates: int
    per_second: float
    dead_letters: Mapping[str, str]
    """Reason by order id."""
    problems: Sequence[str]
    """Why the group's ledger does not balance; empty when it does."""


@dataclass(frozen=True)
class Report:
    broker: str
    topic: str
    orders: int
    published: int
    seconds: float
    groups: Sequence[GroupReport]

    @property
    def balanced(self) -> bool:
        """Every order was published, and each group handled or dead-lettered each of them."""
        return self.published == self.orders and not any(group.problems for group in self.groups)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"balanced": self.balanced, **asdict(self)}


def group_report(
    ledger: GroupLedger,
    published: set[str],
    dead_letters: Mapping[str, str],
    copies: int,
    plan: Expected,
    started: float,
) -> GroupReport:
    """Balances one group's book against what was `published` and what its dead-letter queue holds.

    dead_letters: reason by id. copies: how many messages that queue held, duplicates included. started: when the
    first order was published, seconds of `time.monotonic`.
    """
    received, handled, given_up, foreign = ledger.sets()
    dead = set(dead_letters)
    planned = {order_id(number) for number in plan.dead_letters} & published
    checks = (
        ("neither handled nor in the dead-letter queue", published - handled - dead),
        ("handled and in the dead-letter queue", handled & dead),
        ("given up, but not in the dead-letter queue", given_up - handled - dead),
        ("in the dead-letter queue, but never given up", dead - given_up),
        ("dead-lettered, though not planned", dead - planned),
        ("handled, though planned to be dead-lettered", planned & handled),
        ("received, but never published", (received | foreign) - published),
    )
    seconds = max(ledger.last - started, 1e-9)
    return GroupReport(
        ledger.group,
        received=len(received),
        handled=len(handled),
        retried=ledger.retried,
        dead_lettered=len(dead),
        duplicates=ledger.duplicates + copies - len(dead),
        per_second=(len(handled) + len(dead)) / seconds if handled or dead else 0.0,
        dead_letters=dict(sorted(dead_letters.items())),
        problems=[f"{len(ids)} {what}: {_some(ids)}" for what, ids in checks if ids],
    )


def _some(ids: set[str]) -> str:
    shown = ", ".join(sorted(ids)[:_SHOWN])
    return f"{shown}, ..." if len(ids) > _SHOWN else shown
