"""Runs one clause on one broker, within its deadline, and says how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from threading import Thread

from messaging import Broker
from messaging.capabilities import Capabilities, Support
from messaging_contract.bench import Bench
from messaging_contract.clause import Check, Clause, Kind
from messaging_contract.deadline import within
from messaging_contract.harness import Harness
from messaging_contract.refusals import refuse

HARMFUL = frozenset({"restart", "pause", "kill", "alarm", "congested"})
"""Controls after which the shared connection is made again."""

CONNECT = 60.0
"""Seconds for what the suite itself asks of an adapter between two clauses."""

_SLACK = 5.0


class Outcome(Enum):
    """How a clause ended on a broker."""

    PASS = "pass"
    EMULATED = "emulated"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Result:
    """detail: why it failed or was not run, or how it is emulated. seconds: how long it took.

    at: when it began, seconds since the epoch; 0 when it did not.
    """

    clause: str
    broker: str
    outcome: Outcome
    seconds: float = 0.0
    detail: str = ""
    at: float = 0.0


def expected(clause: Clause, able: Capabilities, can: Callable[[str], bool]) -> tuple[Outcome, str]:
    """How `clause` ends where nothing is wrong, on a broker with these capabilities and a harness with these controls.

    The detail says which control is missing, how it is emulated, or why it is refused.
    """
    missing = [control for control in clause.controls if not can(control)]
    if missing == ["in_memory"]:
        return Outcome.NOT_RUN, "it is about the database and no broker, and runs with --broker memory://"
    if missing:
        return Outcome.NOT_RUN, f"this harness has no control {', '.join(missing)}"
    if lacking := _lacking(clause, able):
        return Outcome.REFUSED, getattr(able, lacking).how
    used = [getattr(able, name) for name in (*clause.needs, *(f"{kind}s" for kind in _kinds(clause, able)))]
    how = [capability.how for capability in used if capability.support is Support.EMULATED]
    return (Outcome.EMULATED, "; ".join(how)) if how else (Outcome.PASS, "")


def run_clause(clause: Clause, harness: Harness) -> tuple[Outcome, str]:
    """Proves `clause`, or its refusal where a capability it needs is unsupported.

    Returns the outcome (never FAILED) and a detail; raises what the clause raised, and Hanging at its deadline.
    """
    if reason := harness.spares(clause):
        return Outcome.NOT_RUN, reason
    able = within(_short(clause), f"connecting for {clause.id}", lambda: harness.capabilities)
    outcome, detail = expected(clause, able, harness.can)
    if outcome is Outcome.NOT_RUN:
        return outcome, detail
    if why := no_database(clause, harness):
        return Outcome.NOT_RUN, why
    lacking = _lacking(clause, able)
    try:
        if lacking:
            _run(clause, Bench(harness), lambda bench: refuse(lacking, bench))
        for kind in () if lacking else _kinds(clause, able) or (None,):
            _run(clause, Bench(harness, kind or "queue"), clause.check)
    finally:
        if HARMFUL.intersection(clause.controls):
            within(_short(clause), f"closing the connection after {clause.id}", harness.renew)
    return outcome, detail


def no_database(clause: Clause, harness: Harness) -> str:
    """Why the database that `clause` is about is not there, or nothing."""
    if "database" not in clause.controls or harness.database is None:
        return ""
    return within(_short(clause), f"reaching the database for {clause.id}", harness.database.missing)


def longest(clause: Clause) -> float:
    """Seconds after which `run_clause` has surely returned, as long as threads can run."""
    return _SLACK + 2 * _short(clause) + max(len(clause.on), 1) * (clause.deadline + _short(clause))


def is_gone(harness: Harness) -> str:
    """Why the broker does not answer on a new connection, or nothing when it does."""
    opened: list[Broker] = []

    def ask() -> None:
        opened.append(harness.connect())
        opened[0].ping()

    try:
        within(CONNECT / 2, "asking the broker for a sign of life", ask)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        for broker in opened:
            Thread(target=broker.close, name="closing what was opened to ask", daemon=True).start()
    return ""


def _short(clause: Clause) -> float:
    return min(CONNECT, clause.deadline)


def _kinds(clause: Clause, able: Capabilities) -> list[Kind]:
    return [kind for kind in clause.on if getattr(able, f"{kind}s")]


def _lacking(clause: Clause, able: Capabilities) -> str:
    """The capability that it needs and that is unsupported, or nothing."""
    if clause.on and not _kinds(clause, able):
        return f"{clause.on[0]}s"
    return next((name for name in clause.needs if not getattr(able, name)), "")


def _run(clause: Clause, bench: Bench, check: Check) -> None:
    def clean_up() -> None:
        within(_short(clause), f"cleaning up after {clause.id}", bench.close)

    try:
        within(clause.deadline, clause.id, lambda: check(bench))
    except BaseException as error:
        if len(clause.on) > 1:
            error.add_note(f"on a {bench.kind}")
        try:
            clean_up()
        except BaseException as second:  # often for the same reason; the first one says more
            error.add_note(f"then {type(second).__name__}: {second}")
        raise
    clean_up()
