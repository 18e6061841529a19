"""The clauses, one file an area. `all_clauses` is the list of them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from messaging_contract.clause import Clause, clauses_in


def all_clauses() -> list[Clause]:
    """Every clause, area by area, in the order of the files. Raises ValueError when two share an id."""
    names = sorted(info.name for info in iter_modules(__path__) if info.name.startswith("test_"))
    found = [clause for name in names for clause in clauses_in(import_module(f"{__name__}.{name}"))]
    ids = [clause.id for clause in found]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        raise ValueError(f"clause ids used twice: {', '.join(twice)}")
    return found
