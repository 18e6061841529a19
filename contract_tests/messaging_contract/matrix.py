"""What a run showed: clause x broker, with what each broker told of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from messaging_contract.clause import Clause
from messaging_contract.facts import Facts
from messaging_contract.runner import Outcome, Result

EXPLAINED = {
    Outcome.FAILED: "Failures",
    Outcome.EMULATED: "How it is emulated",
    Outcome.REFUSED: "Why it is refused",
    Outcome.NOT_RUN: "Why it was not run",
}
"""The outcomes whose details are told, worst first, each with a title."""


@dataclass(frozen=True)
class Matrix:
    """brokers: the columns. unavailable: why a broker was not run at all, by name. facts: by name, of those reached.

    whole: every clause there is was to run.
    """

    clauses: Sequence[Clause]
    brokers: Sequence[str]
    results: Sequence[Result]
    unavailable: Mapping[str, str]
    facts: Mapping[str, Facts] = field(default_factory=dict)
    whole: bool = False

    def outcome(self, clause: str, broker: str) -> Result:
        """The result in one cell; not run when there is none."""
        for result in self.results:
            if (result.clause, result.broker) == (clause, broker):
                return result
        return Result(clause, broker, Outcome.NOT_RUN, detail=self.unavailable.get(broker, ""))

    def complete(self, broker: str) -> bool:
        """Whether every clause has ended on the broker, however it did."""
        ended = {result.clause for result in self.results if result.broker == broker}
        return all(clause.id in ended for clause in self.clauses)

    def counts(self, broker: str) -> Counter[Outcome]:
        """How many clauses ended how on a broker."""
        return Counter(self.outcome(clause.id, broker).outcome for clause in self.clauses)

    def seconds(self, broker: str) -> float:
        """How long the clauses took on a broker."""
        return sum(result.seconds for result in self.results if result.broker == broker)

    def version(self, broker: str) -> str:
        """As the broker tells it; empty when it does not, or was not reached."""
        facts = self.facts.get(broker)
        return "" if facts is None else facts.version

    def notes(self, outcome: Outcome) -> list[tuple[tuple[str, str], list[str]]]:
        """The details of all results with that outcome, each once a broker, with the clauses it is about."""
        found: dict[tuple[str, str], list[str]] = {}
        for result in self.results:
            if result.outcome is outcome and result.detail:
                found.setdefault((result.broker, result.detail), []).append(result.clause)
        return list(found.items())


def summary(matrix: Matrix, broker: str) -> str:
    """One line about a broker."""
    if broker in matrix.unavailable:
        return f"not run: {matrix.unavailable[broker]}"
    counts = matrix.counts(broker)
    told = ", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o]) + f" in {matrix.seconds(broker):.0f} s"
    version, facts = matrix.version(broker), matrix.facts.get(broker)
    told += f", on {version}" if version else ""
    return f"{told}, with {facts.database}" if facts is not None and facts.database else told
