"""What an adapter declares, and README shows, has to be what the clauses have proven."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messaging import adapters
from messaging.capabilities import Capabilities, emulated, unsupported
from messaging_contract.brokers import memory_harness
from messaging_contract.clause import BOTH, QUEUE, Clause
from messaging_contract.clauses import all_clauses
from messaging_contract.declarations import _EVERY_REFUSAL, unproven
from messaging_contract.facts import Facts, facts_of
from messaging_contract.matrix import Matrix
from messaging_contract.runner import Outcome, Result
from messaging_contract.saboteurs.hunt import harness_of
from messaging_contract.saboteurs.saboteur import Saboteur
from messaging_contract.saboteurs.wrap import HonestDriver


def matrix(outcome: Outcome, support: str, *, needs: str = "lag", whole: bool = True) -> Matrix:
    """One clause that needs a capability, which is declared so and whose clause has ended so."""
    supports = {"queues": "native", "topics": "native", "lag": "native"} | {needs: support}
    plain = Clause("a.plain", "Holds.", lambda _bench: None, BOTH)
    special = Clause("a.special", "Needs it.", lambda _bench: None, QUEUE, needs=(needs,))
    lag = Clause("a.lag", "Needs lag.", lambda _bench: None, QUEUE, needs=("lag",))
    clauses = [plain, special] + ([lag] if needs != "lag" else [])
    results = [Result("a.plain", "b", Outcome.PASS), Result("a.special", "b", outcome)]
    results += [Result("a.lag", "b", Outcome.PASS)]
    facts = {"b": Facts("B 1", supports, ("B",), True)}
    return Matrix(clauses, ["b"], results, {}, facts, whole)


def test_what_is_declared_and_has_held_is_proven() -> None:
    assert unproven(matrix(Outcome.PASS, "native")) == []
    assert unproven(matrix(Outcome.EMULATED, "emulated")) == []
    assert unproven(matrix(Outcome.REFUSED, "unsupported")) == []


def test_what_is_declared_and_has_not_held_is_told() -> None:
    for outcome in (Outcome.FAILED, Outcome.NOT_RUN):
        assert unproven(matrix(outcome, "native")) == [
            "b: lag is declared native, and no clause that needs it has held"
        ]
    assert unproven(matrix(Outcome.FAILED, "emulated", needs="ttl")) == [
        "b: ttl is declared emulated, and no clause that needs it has held"
    ]


def test_a_refusal_that_nobody_has_proven_is_told() -> None:
    assert unproven(matrix(Outcome.FAILED, "unsupported")) == [
        "b: lag is declared unsupported, and no clause has proven that it is refused"
    ]


def test_a_part_of_the_clauses_proves_nothing_about_the_others() -> None:
    assert unproven(matrix(Outcome.NOT_RUN, "native", whole=False)) == []


def test_what_is_told_when_connected_must_be_a_column_of_the_declarations() -> None:
    whole = matrix(Outcome.PASS, "native")
    undeclared = replace(whole, facts={"b": replace(whole.facts["b"], declared=())})
    assert unproven(undeclared) == [
        "b: what it can do when it is connected is none of the columns that its adapter declares"
    ]


def test_the_clause_that_asks_for_every_refusal_exists() -> None:
    assert _EVERY_REFUSAL in {clause.id for clause in all_clauses()}


def test_facts_name_the_column() -> None:
    facts = facts_of(memory_harness())
    assert facts.declared == ("memory",)
    assert facts.version.startswith("anybroker ")
    for other in ({"lag": emulated("by counting")}, {"replay": unsupported("no")}):
        capabilities = replace(HonestDriver.capabilities, **other)
        driver = type("Driver", (HonestDriver,), {"capabilities": capabilities})
        facts = facts_of(harness_of(Saboteur("s", "", driver, ())))
        assert facts.known
        assert facts.declared == ()


@pytest.mark.parametrize("adapter", ["memory", "rabbitmq", "kafka", "sqs"])
def test_the_clauses_suffice_to_prove_every_column_of_the_table(adapter: str) -> None:
    """Without any control of a harness, so also on a broker that is only reached by its URL."""
    for label, column in adapters.load(adapter).declared_capabilities():
        supports = {name: getattr(column, name).support.value for name in Capabilities.names()}
        results = [Result(clause.id, "b", as_it_should_end(clause, column)) for clause in all_clauses()]
        facts = {"b": Facts("B", supports, (label,), True)}
        assert unproven(Matrix(all_clauses(), ["b"], results, {}, facts, whole=True)) == []


def as_it_should_end(clause: Clause, able: Capabilities) -> Outcome:
    if clause.controls:
        return Outcome.NOT_RUN
    kinds = [kind for kind in clause.on if getattr(able, f"{kind}s")]
    if (clause.on and not kinds) or not all(getattr(able, name) for name in clause.needs):
        return Outcome.REFUSED
    return Outcome.PASS
