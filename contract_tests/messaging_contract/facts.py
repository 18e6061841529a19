"""What a broker told of itself when it was reached: its version, what it can do, and what was found in its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from messaging import adapters
from messaging.capabilities import Capabilities
from messaging.concerns import Concern
from messaging.errors import MessagingError
from messaging_contract.harness import Harness


@dataclass(frozen=True)
class Facts:
    """version: in the broker's own words, empty when it tells none. supports: "native", "emulated" or "unsupported" by
    the name of the capability. declared: the columns of README's table that say the same, empty for an adapter whose
    declarations could not be had; `known`: whether they could. concerns: of a run with --safe.
    database: for the clauses about the patterns on SQL, with its version; empty without one.
    """

    version: str = ""
    supports: Mapping[str, str] = field(default_factory=dict)
    declared: tuple[str, ...] = ()
    known: bool = False
    concerns: tuple[Concern, ...] = ()
    database: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Facts:
        return cls(
            data["version"],
            data["supports"],
            tuple(data["declared"]),
            data["known"],
            tuple(Concern(**concern) for concern in data["concerns"]),
            data["database"],
        )


def facts_of(harness: Harness) -> Facts:
    """Asks the broker. Facts without content when it does not answer: its clauses will tell that."""
    database = "" if harness.database is None else harness.database.version
    return replace(_facts_of_broker(harness), database=database)


def _facts_of_broker(harness: Harness) -> Facts:
    try:
        broker = harness.broker
        version, supports = broker.version, _supports(broker.capabilities)
    except MessagingError:
        return Facts(concerns=tuple(harness.concerns))
    try:
        columns = adapters.load(broker.name).declared_capabilities()
    except MessagingError:
        return Facts(version, supports, concerns=tuple(harness.concerns))
    same = tuple(label for label, column in columns if _supports(column) == supports)
    return Facts(version, supports, same, True, tuple(harness.concerns))


def _supports(capabilities: Capabilities) -> dict[str, str]:
    return {name: getattr(capabilities, name).support.value for name in Capabilities.names()}
