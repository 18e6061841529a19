"""The suite's own test: each saboteur fails the clauses that it names, which hold for the honest driver.

And each clause is named by a saboteur, so that it is known to be able to fail, or `unsabotaged` says why it is not.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import pytest

import messaging_contract
from messaging import MessagingError
from messaging_contract.clause import Clause
from messaging_contract.clauses import all_clauses
from messaging_contract.harness import Harness
from messaging_contract.runner import Outcome, run_clause
from messaging_contract.saboteurs.catalogue import (
    HONEST,
    HONEST_LINE,
    HONEST_TRANSACTING,
    SABOTEURS,
    honest_for,
)
from messaging_contract.saboteurs.harnesses import harness_of
from messaging_contract.saboteurs.saboteur import Saboteur
from messaging_contract.saboteurs.unsabotaged import WHY_NOT
from messaging_contract.saboteurs.wrap import CRASHES
from messaging_memory import MemoryServer

_PROOF = (AssertionError, pytest.fail.Exception, MessagingError, TimeoutError)
"""How a clause finds a defect: something does not hold, raises what it should not, or does not come. Anything else
is a saboteur that fell over its own feet, which proves nothing about the clause."""

_DEADLINE = 30.0
"""Seconds after which a clause counts as failed here: nothing on the memory broker takes that long."""

_SABOTEURS_DEADLINE = 15.0
"""The same for a clause that is to fail, by hanging where that is the defect."""

_PATIENCE, _HONEST_PATIENCE = 3.0, 6.0
"""Seconds that a message is waited for: less where it is not expected to come."""

_AT_ONCE = 24
"""Clauses run at a time: most of the time is spent waiting for messages that do not come."""

_ALONE = frozenset({"lifecycle.nothing-left-running", "faults.no-return-after-close"})
"""Clauses about this process as a whole, which others beside them would spoil."""

_SUITE = Path(messaging_contract.__file__).parent
_SABOTEURS = Path(__file__).parent


@dataclass(frozen=True)
class Verdict:
    """What a clause made of a driver. found: it failed, in the words of `text`; not found: `text` is what else went
    wrong, if anything did.
    """

    saboteur: Saboteur
    clause: Clause
    found: bool
    seconds: float
    text: str = ""


def judge(saboteur: Saboteur, clause: Clause, database: str | None = None) -> Verdict:
    """Runs one clause on one driver, which has a broker of its own. database: its URL, for the patterns on SQL."""
    honest = saboteur in (HONEST, HONEST_LINE, HONEST_TRANSACTING)
    server = MemoryServer()
    harness = harness_of(saboteur, _HONEST_PATIENCE if honest else _PATIENCE, server, database)
    deadline = min(clause.deadline, _DEADLINE if honest else _SABOTEURS_DEADLINE)
    started = time.monotonic()
    try:
        text = failure(replace(clause, deadline=deadline), harness)
        for crash in CRASHES.get(server, ()):
            raise crash
    except Exception as crash:
        return Verdict(saboteur, clause, False, time.monotonic() - started, f"crashed: {_words(crash)}")
    return Verdict(saboteur, clause, text is not None, time.monotonic() - started, text or "")


def failure(clause: Clause, harness: Harness) -> str | None:
    """Why a clause fails, or None when it holds. Raises what proves no defect, and ValueError when it cannot be run."""
    try:
        outcome, detail = run_clause(clause, harness)
    except _PROOF as error:
        if not _is_the_clauses(error):
            raise
        return _words(error)
    if outcome is Outcome.NOT_RUN:
        raise ValueError(detail)
    return None


def _is_the_clauses(error: BaseException) -> bool:
    """False for an assertion of the saboteur's or the adapter's, and for what came up only when cleaning up."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError):
        raised_in = Path(frames[-1].filename).parents
        return _SUITE in raised_in and _SABOTEURS not in raised_in and "cleaning up" not in str(error)
    return any(Path(frame.filename).parent.name == "clauses" or "refusals" in frame.filename for frame in frames)


def _words(error: BaseException) -> str:
    """The error in a line; for an `assert` without words, the line it is in."""
    said = str(error).strip().splitlines()
    if not said:
        said = [line for frame in traceback.extract_tb(error.__traceback__)[-1:] for line in [frame.line or ""]]
    return f"{type(error).__name__}: {said[0] if said else ''}"


def hunt(only: str | None = None, database: str | None = None) -> int:
    """Prints what each clause said of the saboteurs that name it, and which clauses are known to be able to fail.

    only: part of the name of a saboteur or of a clause. database: the URL of that for the patterns on SQL; without one,
    or with SQLite, those whose defect shows only where several write at a time are left out. Returns 1 when one got
    away, crashed, or names a clause that fails for the honest driver too; else 0.
    """
    known = {clause.id: clause for clause in all_clauses()}
    several_writers = database is not None and not database.startswith("sqlite")
    chosen = [
        (saboteur, known[id])
        for saboteur in SABOTEURS
        if several_writers or not saboteur.several_writers
        for id in saboteur.clauses
        if only is None or only in saboteur.name or only in id
    ]
    beside = [pair for pair in chosen if pair[1].id not in _ALONE]
    alone = [pair for pair in chosen if pair[1].id in _ALONE]
    logging.getLogger().addHandler(logging.NullHandler())  # what saboteurs make the worker log is of no interest
    width = max((len(saboteur.name) for saboteur, _clause in chosen), default=0)
    proven: list[Clause] = []
    for verdict, control in chain(_tried(beside, _AT_ONCE, database), _tried(alone, 1, database)):
        if control.found or control.text:
            said = f"FAILS FOR THE HONEST DRIVER TOO: {control.text}"
        elif verdict.found:
            said = f"{verdict.seconds:.1f} s: {verdict.text}"
            proven.append(verdict.clause)
        else:
            said = f"NOT CAUGHT  {verdict.saboteur.defect} {verdict.text}"
        print(f"{verdict.saboteur.name:{width}}  {verdict.clause.id} {said}"[:180], flush=True)
    if only is None:
        _show(list(known.values()), {clause.id for clause in proven})
    names = {saboteur.name for saboteur, _clause in chosen}
    if not several_writers and (left := [each.name for each in SABOTEURS if each.several_writers]):
        print(f"left out, since SQLite has one writer at a time (try --database postgresql://...): {', '.join(left)}")
    print(f"{len(names)} saboteurs; {len(proven)} of {len(chosen)} times the clause that one names caught it")
    return 0 if len(proven) == len(chosen) > 0 else 1


def _tried(
    pairs: Sequence[tuple[Saboteur, Clause]], at_once: int, database: str | None
) -> Iterator[tuple[Verdict, Verdict]]:
    """The verdict on each pair, and that of the same clause on the honest driver."""
    with ThreadPoolExecutor(at_once) as pool:
        trials = [pool.submit(judge, saboteur, clause, database) for saboteur, clause in pairs]
        honest = [(honest_for(saboteur), clause) for saboteur, clause in pairs]
        controls = {pair: pool.submit(judge, *pair, database) for pair in dict.fromkeys(honest)}
        for trial, pair in zip(trials, honest, strict=True):
            yield trial.result(), controls[pair].result()


def _show(clauses: Sequence[Clause], proven: set[str]) -> None:
    """Prints, area by area, how many clauses are known to be able to fail, and why the others are not."""
    print("\nclauses       can fail  has a reason  neither")
    for area in dict.fromkeys(clause.area for clause in clauses):
        ids = {clause.id for clause in clauses if clause.area == area}
        excused = {id for id in ids if id in WHY_NOT}
        print(f"{area:12} {len(ids & proven):9} {len(excused):13} {len(ids - proven - excused):8}")
    for why in dict.fromkeys(WHY_NOT.values()):
        print(f"\n{why}:\n  {', '.join(id for id, reason in WHY_NOT.items() if reason == why)}")
    print()
