"""The suite's own test: every saboteur must fail a clause, and that clause must hold for the honest driver."""

from __future__ import annotations

import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from messaging import Broker, MessagingError, Topology, config
from messaging_contract.clause import Clause
from messaging_contract.clauses import all_clauses
from messaging_contract.harness import Harness
from messaging_contract.runner import Outcome, run_clause
from messaging_contract.saboteurs.catalogue import HONEST, HONEST_LINE, SABOTEURS, Saboteur
from messaging_contract.saboteurs.line import Line
from messaging_memory import MemoryServer

_DEADLINE = 30.0
"""Seconds after which a clause counts as failed here: nothing on the memory broker takes that long."""

_PROOF = (AssertionError, pytest.fail.Exception, MessagingError, TimeoutError)
"""How a clause finds a defect: something does not hold, raises what it should not, or does not come. Anything else
is a saboteur that fell over its own feet, which proves nothing about the clause."""

_AT_ONCE = 10
"""Saboteurs tried at a time: most of the time is spent waiting for messages that do not come."""

_NOT_HERE = frozenset({"lifecycle.nothing-left-running"})
"""Clauses about this process as a whole, which the saboteurs beside them would spoil."""


@dataclass(frozen=True)
class Kill:
    """Which clause caught a saboteur, and with what words. `clause` None: none did, or it crashed, as `text` says."""

    saboteur: Saboteur
    clause: str | None
    seconds: float
    text: str = ""


class MemoryLink:
    """A `Link` of a driver in memory. Cutting and silence are the same to it."""

    def __init__(self, connect: Any, line: Line) -> None:
        self.connect = connect
        self.cut = line.cut
        self.blackhole = line.cut
        self.delay = line.delay
        self.resume = line.resume

    def close(self) -> None:
        self.resume()


def harness_of(saboteur: Saboteur) -> Harness:
    """A harness of one saboteur: a memory server of its own, a driver a connection."""
    server = MemoryServer()

    def connect(line: Line | None = None, **keywords: Any) -> Broker:
        topology, create = keywords.pop("topology", None), keywords.pop("create", True)
        options = config.build_options(saboteur.driver.Options, {"server": server, **keywords}, "memory")
        driver = saboteur.driver(options)
        if saboteur.on_a_line:
            driver.line = line or Line()  # type: ignore[attr-defined]
        try:
            driver.open()
            broker = Broker(driver, create=create)
            broker.declare(Topology.of(topology))
        except BaseException:
            driver.close()
            raise
        return broker

    def link() -> MemoryLink:
        line = Line()
        return MemoryLink(lambda **keywords: connect(line, **keywords), line)

    harness = Harness(saboteur.name, connect, url="memory://", volume=300, quiet=0.1, patience=6.0, pace=0.25)
    if saboteur.on_a_line:
        harness.link = link
    return harness


def catch(saboteur: Saboteur, clauses: list[Clause], trusted: set[str]) -> Kill:
    """Tries the clauses until one fails. Only those that hold for the honest driver count; `trusted` caches these."""
    started = time.monotonic()
    first = {id: number for number, id in enumerate(saboteur.likely)}
    harness = harness_of(saboteur)
    for clause in sorted(clauses, key=lambda clause: first.get(clause.id, len(first))):
        try:
            text = failure(clause, harness)
        except Exception as crash:
            return Kill(saboteur, None, time.monotonic() - started, f"crashed in {clause.id}: {_words(crash)}")
        if text is None:
            continue
        if clause.id not in trusted:
            honest = failure(clause, harness_of(HONEST_LINE if saboteur.on_a_line else HONEST))
            if honest is not None:
                raise AssertionError(f"{clause.id} fails for the honest driver too: {honest}")
            trusted.add(clause.id)
        return Kill(saboteur, clause.id, time.monotonic() - started, text)
    return Kill(saboteur, None, time.monotonic() - started)


def failure(clause: Clause, harness: Harness) -> str | None:
    """Why a clause fails, or None when it holds or cannot be run. Raises what is no proof of a defect."""
    try:
        outcome, _ = run_clause(replace(clause, deadline=min(clause.deadline, _DEADLINE)), harness)
    except _PROOF as error:
        return _words(error)
    assert outcome is not Outcome.FAILED
    return None


def _words(error: BaseException) -> str:
    """The error in a line; for an `assert` without words, the line it is in."""
    said = str(error).strip().splitlines()
    if not said:
        said = [line for frame in traceback.extract_tb(error.__traceback__)[-1:] for line in [frame.line or ""]]
    return f"{type(error).__name__}: {said[0] if said else ''}"


def hunt(only: str | None = None) -> int:
    """Prints which clause caught which saboteur; returns 1 when one got away. `only`: part of a name."""
    clauses = [clause for clause in all_clauses() if clause.id not in _NOT_HERE]
    chosen = [saboteur for saboteur in SABOTEURS if only is None or only in saboteur.name]
    trusted: set[str] = set()
    alive = 0
    width = max((len(saboteur.name) for saboteur in chosen), default=0)
    logging.getLogger().addHandler(logging.NullHandler())  # what saboteurs make the worker log is of no interest
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for kill in pool.map(lambda saboteur: catch(saboteur, clauses, trusted), chosen):
            name, defect = kill.saboteur.name, kill.saboteur.defect
            if kill.clause is None:
                alive += 1
                print(f"{name:{width}}  NOT CAUGHT  {defect}" + (f" It {kill.text}" if kill.text else ""), flush=True)
            else:
                print(f"{name:{width}}  {kill.clause} in {kill.seconds:.1f} s: {kill.text}"[:160], flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} saboteurs caught")
    return 1 if alive or not chosen else 0
