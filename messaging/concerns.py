"""What the settings of a broker do not uphold of what this library promises, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Concern:
    """One setting that weakens a promise, or one that could not be looked at.

    about: whose setting: "cluster", "topic 'orders'". setting: in the broker's own words: "min.insync.replicas". found:
    what it is, or why it could not be looked at. why: what it does to the promise. change: how to change it. seen:
    False when it could not be looked at, which is told and is nothing wrong. stops: the broker takes no messages.
    """

    about: str
    setting: str
    found: str
    why: str
    change: str = ""
    seen: bool = True
    stops: bool = False

    def __str__(self) -> str:
        if not self.seen:
            return f"not looked at: {self.setting} of {self.about}: {self.found}"
        return f"{self.setting} of {self.about}: {self.found}"


def unseen(about: str, setting: str, reason: str, why: str, change: str = "") -> Concern:
    """A setting that could not be looked at, for that reason; `change`: how to look by hand."""
    return Concern(about, setting, reason, why, change, seen=False)


def merged(concerns: Iterable[Concern]) -> list[Concern]:
    """Each setting once, where several queues or topics have it: "topic 'orders' and 4 more"."""
    alike: dict[tuple[str, ...], list[Concern]] = {}
    for concern in concerns:
        kind = concern.about.partition("'")[0]
        alike.setdefault((kind, concern.setting, concern.found, concern.why), []).append(concern)
    return [
        first if not others else replace(first, about=f"{first.about} and {len(others)} more")
        for first, *others in alike.values()
    ]
