"""A clause: one sentence of the contract and the function that proves it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from messaging_contract.bench import Bench

Check = Callable[["Bench"], None]

Kind = Literal["queue", "topic"]

BOTH: tuple[Kind, ...] = ("queue", "topic")
QUEUE: tuple[Kind, ...] = ("queue",)
TOPIC: tuple[Kind, ...] = ("topic",)

DATABASE_ALONE = ("database", "in_memory")
"""Controls of a clause about the database and no broker: it is run once, on the memory broker."""

DEADLINE = 90.0
"""Seconds after which a clause counts as hanging, and fails."""


@dataclass(frozen=True)
class Clause:
    """id: `area.words`. anchors and failures: numbers of the tables in `anchors`.

    on: the kinds of destination it is proven on, in one run each; those the broker lacks are left out.
    needs: capabilities (fields of `Capabilities`); where one is unsupported, its refusal is proven instead.
    controls: what the harness must be able to do to the broker (fields of `Harness`); else the clause is not run.
    deadline: seconds, a bound on hanging and not an expectation.
    """

    id: str
    sentence: str
    check: Check
    on: tuple[Kind, ...]
    anchors: tuple[int, ...] = ()
    failures: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    deadline: float = DEADLINE

    @property
    def area(self) -> str:
        return self.id.partition(".")[0]


def clause(
    id: str,
    sentence: str,
    *,
    on: tuple[Kind, ...] = BOTH,
    anchors: list[int] | None = None,
    failures: list[int] | None = None,
    needs: str | Iterable[str] | None = None,
    controls: str | Iterable[str] | None = None,
    deadline: float = DEADLINE,
) -> Callable[[Check], Check]:
    """Marks a function as the proof of a clause. The arguments are those of `Clause`."""

    def mark(check: Check) -> Check:
        check.clause = Clause(  # type: ignore[attr-defined]
            id,
            sentence,
            check,
            on,
            tuple(anchors or ()),
            tuple(failures or ()),
            _several(needs),
            _several(controls),
            deadline,
        )
        return check

    return mark


def clause_of(function: object) -> Clause | None:
    """The clause that `function` proves, or None when it is some other function."""
    found = getattr(function, "clause", None)
    return found if isinstance(found, Clause) else None


def clauses_in(module: ModuleType) -> list[Clause]:
    """The clauses defined in `module`, in the order of the file."""
    found = [clause_of(value) for value in vars(module).values() if inspect.isfunction(value)]
    return [c for c in found if c is not None and c.check.__module__ == module.__name__]


def _several(value: str | Iterable[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
