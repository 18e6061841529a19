"""Medians, spreads and ratios of rounds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.contender import Role


def quantile(values: Sequence[float], q: float) -> float:
    """The value that a share `q` of `values` does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, min and max."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """ours / theirs of each round: what slowed the machine in a round slowed both."""
    return [one / two for one, two in zip(ours, theirs, strict=False) if two]


def target_for(targets: dict[Role, float], contender: str, role: Role) -> float | None:
    """The target against one contender. Targets against peers name FastStream's ordinary way of working."""
    if role is Role.PEER and contender != "FastStream":
        return None
    return targets.get(role)
