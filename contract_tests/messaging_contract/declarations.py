"""Whether what the adapters declare, and README shows, is what the clauses have proven."""

from __future__ import annotations

from messaging_contract.clause import Clause
from messaging_contract.matrix import Matrix
from messaging_contract.runner import Outcome

_HELD = (Outcome.PASS, Outcome.EMULATED)
_UNSUPPORTED = "unsupported"
_EVERY_REFUSAL = "meta.unsupported-refuses"
"""The clause that asks for each capability that is declared unsupported."""


def unproven(matrix: Matrix) -> list[str]:
    """What is declared and not proven, a sentence each. Nothing, unless every clause was to run and has ended.

    A capability that is there needs a clause that needs it and held; one that is not, a clause that was refused for it.
    """
    found: list[str] = []
    if not matrix.whole:
        return found
    for broker in matrix.brokers:
        facts = matrix.facts.get(broker)
        if facts is None or not facts.known or not matrix.complete(broker):
            continue
        if not facts.declared:
            found.append(
                f"{broker}: what it can do when it is connected is none of the columns that its adapter declares"
            )
        for name, support in facts.supports.items():
            if support == _UNSUPPORTED:
                if not _refused(matrix, broker, name):
                    found.append(
                        f"{broker}: {name} is declared unsupported, and no clause has proven that it is refused"
                    )
            elif not any(_needs(c, name) and matrix.outcome(c.id, broker).outcome in _HELD for c in matrix.clauses):
                found.append(f"{broker}: {name} is declared {support}, and no clause that needs it has held")
    return found


def _needs(clause: Clause, name: str) -> bool:
    return name in clause.needs or name in [f"{kind}s" for kind in clause.on]


def _refused(matrix: Matrix, broker: str, name: str) -> bool:
    supports = matrix.facts[broker].supports
    if matrix.outcome(_EVERY_REFUSAL, broker).outcome in _HELD:
        return True
    for clause in matrix.clauses:
        if matrix.outcome(clause.id, broker).outcome is Outcome.REFUSED:
            kinds = [f"{kind}s" for kind in clause.on]
            lacking = [need for need in clause.needs if supports[need] == _UNSUPPORTED]
            if kinds and all(supports[kind] == _UNSUPPORTED for kind in kinds):
                lacking = kinds
            if lacking and lacking[0] == name:
                return True
    return False
