"""What declaring a topology makes on one broker, and what a look at that broker found, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["there", "missing", "different", "unknown"]


@dataclass(frozen=True)
class Part:
    """One thing that the broker holds.

    kind: in the broker's own words: "exchange", "consumer group", "SQS queue". settings: the broker's own arguments of
    it. why: what it is for and why it is safe, in one sentence. on_demand: made at its first use, not by `declare`.
    """

    kind: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    why: str = ""
    on_demand: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


@dataclass(frozen=True)
class Difference:
    """One setting that is `found` and should be `wanted`; None: not set."""

    setting: str
    found: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.setting} is {_shown(self.found)} and should be {_shown(self.wanted)}"


@dataclass(frozen=True)
class Finding:
    """What a look at the broker told of one part.

    state: "unknown" is what this broker does not tell. way_out: what to do about it, or why it is not known; empty for
    what is there.
    """

    part: Part
    state: State
    differences: tuple[Difference, ...] = ()
    way_out: str = ""

    @property
    def drifted(self) -> bool:
        """Whether the broker does not hold what was planned. What is made on demand may be missing."""
        return self.state == "different" or (self.state == "missing" and not self.part.on_demand)


MAKE_IT = "create it: messaging topology apply, or connect with create=True"
"""The way out for what is missing."""


def missing(part: Part) -> Finding:
    """The part is not there."""
    return Finding(part, "missing", (), "it is made when it is first used" if part.on_demand else MAKE_IT)


def compare(part: Part, found: Mapping[str, Any], way_out: str) -> Finding:
    """There or different, by the settings of `part`; what else was found does not count."""
    unequal = tuple(
        Difference(name, found.get(name), wanted) for name, wanted in part.settings.items() if found.get(name) != wanted
    )
    return different(part, unequal, way_out)


def different(part: Part, differences: Iterable[Difference], way_out: str) -> Finding:
    """There when `differences` is empty, else different."""
    unequal = tuple(differences)
    return Finding(part, "different", unequal, way_out) if unequal else Finding(part, "there")


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = str(value)
    return text if text.isprintable() else repr(text)
