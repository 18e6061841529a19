"""One clause on one broker: what does not end is told, and what comes after it still runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Event

import pytest

from messaging.capabilities import emulated, unsupported
from messaging_contract.bench import Bench
from messaging_contract.brokers import memory_harness
from messaging_contract.clause import QUEUE, Clause
from messaging_contract.deadline import Hanging
from messaging_contract.harness import Harness
from messaging_contract.runner import Outcome, run_clause
from messaging_contract.saboteurs.harnesses import harness_of
from messaging_contract.saboteurs.saboteur import Saboteur
from messaging_contract.saboteurs.wrap import HonestDriver


def clause(check: Callable[[Bench], None], **fields: object) -> Clause:
    return replace(Clause("area.words", "A sentence.", check, QUEUE), **fields)  # type: ignore[arg-type]


def nothing(_bench: Bench) -> None:
    """Holds."""


def test_it_passes_on_each_kind() -> None:
    kinds: list[str] = []
    outcome = run_clause(clause(lambda bench: kinds.append(bench.kind), on=("queue", "topic")), memory_harness())
    assert outcome == (Outcome.PASS, "")
    assert kinds == ["queue", "topic"]


def test_what_hangs_is_told_with_where_and_the_run_goes_on() -> None:
    go_on = Event()

    def hang_here(_bench: Bench) -> None:
        go_on.wait(60)

    harness = memory_harness()
    with pytest.raises(Hanging, match=r"area\.words hangs: not done after 0\.1 s(.|\n)*hang_here"):
        run_clause(clause(hang_here, deadline=0.1), harness)
    assert run_clause(clause(nothing), harness) == (Outcome.PASS, "")
    go_on.set()


def test_without_its_control_a_clause_is_not_run() -> None:
    outcome, why = run_clause(clause(nothing, controls=("link",)), memory_harness())
    assert outcome is Outcome.NOT_RUN
    assert "link" in why


def able(**changes: object) -> Harness:
    capabilities = replace(HonestDriver.capabilities, **changes)  # type: ignore[arg-type]
    return harness_of(Saboteur("s", "", type("Driver", (HonestDriver,), {"capabilities": capabilities}), ()))


def test_an_emulation_is_told_with_how() -> None:
    harness = able(lag=emulated("by counting"))
    assert run_clause(clause(nothing, needs=("lag",)), harness) == (Outcome.EMULATED, "by counting")


def test_where_a_capability_is_unsupported_its_refusal_is_proven() -> None:
    def never(_bench: Bench) -> None:
        raise AssertionError("it cannot be run")

    harness = able(lag=unsupported("it does not count"))
    assert run_clause(clause(never, needs=("lag",)), harness) == (Outcome.REFUSED, "it does not count")


def test_what_a_clause_left_open_is_closed_and_deleted() -> None:
    names: list[str] = []

    def leave(bench: Bench) -> None:
        queue = bench.queue()
        bench.consume(queue)
        names.append(queue.name)

    harness = memory_harness()
    run_clause(clause(leave), harness)
    assert harness.broker.topology.get(names[0]) is None


def test_what_cleaning_up_raises_does_not_hide_why_the_clause_failed() -> None:
    def fail(bench: Bench) -> None:
        bench._stack.callback(nothing_to_close)
        raise AssertionError("the reason")

    def nothing_to_close() -> None:
        raise OSError("the aftermath")

    with pytest.raises(AssertionError, match="the reason") as raised:
        run_clause(clause(fail), memory_harness())
    assert raised.value.__notes__ == ["then OSError: the aftermath"]
