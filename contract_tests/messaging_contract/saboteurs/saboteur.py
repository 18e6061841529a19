"""A saboteur: something with one defect, and the clauses that must fail on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from messaging import Broker
from messaging.driver import Driver

if TYPE_CHECKING:
    from messaging_contract.sql.kinds import Kinds


@dataclass(frozen=True)
class Saboteur:
    """defect: what is wrong with it. clauses: the ids of those that must fail on it, at least one.

    on_a_line: behind a connection that can be cut, on a broker that can be restarted and frozen. broker: the core.
    kinds: of the patterns on SQL. several_writers: the defect shows only on a database where two transactions can write
    at a time, which SQLite is not.
    """

    name: str
    defect: str
    driver: type[Driver]
    clauses: tuple[str, ...]
    on_a_line: bool = False
    broker: type[Broker] = Broker
    kinds: Kinds | None = None
    several_writers: bool = False


def named(cls: type) -> tuple[str, str]:
    """The name and the defect of a saboteur that is that class."""
    words = "".join(f"-{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("-")
    return words, (cls.__doc__ or "").strip()
