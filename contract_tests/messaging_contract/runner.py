"""Runs one clause on one broker, within its deadline, and says how it ended."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from threading import Thread
from types import FrameType

from messaging.capabilities import Support
from messaging_contract.bench import Bench
from messaging_contract.clause import Check, Clause
from messaging_contract.harness import Harness
from messaging_contract.refusals import refuse

HARMFUL = frozenset({"restart", "pause"})
"""Controls after which the shared connection is made again."""


class Outcome(Enum):
    """How a clause ended on a broker."""

    PASS = "pass"
    EMULATED = "emulated"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Result:
    """detail: why it failed or was not run, or how it is emulated. seconds: how long it took."""

    clause: str
    broker: str
    outcome: Outcome
    seconds: float = 0.0
    detail: str = ""


class Hanging(AssertionError):
    """A clause that did not end by its deadline."""


def run_clause(clause: Clause, harness: Harness) -> tuple[Outcome, str]:
    """Proves `clause`, or its refusal where a capability it needs is unsupported.

    Returns the outcome (never FAILED) and a detail; raises what the clause raised, and Hanging at its deadline.
    """
    missing = [control for control in clause.controls if not harness.can(control)]
    if missing:
        return Outcome.NOT_RUN, f"this harness has no control {', '.join(missing)}"
    able = harness.capabilities
    kinds = [kind for kind in clause.on if getattr(able, f"{kind}s")]
    lacking = [name for name in clause.needs if not getattr(able, name)]
    if clause.on and not kinds:
        lacking.insert(0, f"{clause.on[0]}s")
    try:
        if lacking:
            _run(clause, Bench(harness), lambda bench: refuse(lacking[0], bench))
            return Outcome.REFUSED, getattr(able, lacking[0]).how
        for kind in kinds or (None,):
            _run(clause, Bench(harness, kind or "queue"), clause.check)
    finally:
        if HARMFUL.intersection(clause.controls):
            harness.renew()
    used = [getattr(able, name) for name in (*clause.needs, *(f"{kind}s" for kind in kinds))]
    how = [capability.how for capability in used if capability.support is Support.EMULATED]
    return (Outcome.EMULATED, "; ".join(how)) if how else (Outcome.PASS, "")


def _run(clause: Clause, bench: Bench, check: Check) -> None:
    def clean_up() -> None:
        _within(min(60.0, clause.deadline), f"cleaning up after {clause.id}", bench.close)

    try:
        _within(clause.deadline, clause.id, lambda: check(bench))
    except BaseException as error:
        if len(clause.on) > 1:
            error.add_note(f"on a {bench.kind}")
        try:
            clean_up()
        except BaseException as second:  # often for the same reason; the first one says more
            error.add_note(f"then {type(second).__name__}: {second}")
        raise
    clean_up()


def _within(seconds: float, what: str, call: Callable[[], None]) -> None:
    """Calls in a thread of its own; one that hangs is left behind (daemon), with its stack in the error."""
    raised: list[BaseException] = []

    def target() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=target, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        raise Hanging(f"{what} hangs: not done after {seconds:g} s\n{stack}")
    if raised:
        raise raised[0]
