"""Makes the faults of a schedule on one broker, one after another, and keeps the book of when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from threading import Event, Thread
from typing import Protocol

from messaging_contract.harness import Harness, Link
from messaging_contract.soak.schedule import PEACE, Fault
from messaging_contract.soak.traffic import Errors


class Leaver(Protocol):
    """A consumer that can be told to go, and comes back."""

    def leave(self) -> None: ...


@dataclass
class Happened:
    """A fault and when it was, seconds since the start. end: None while it lasts."""

    fault: Fault
    start: float
    end: float | None = None


class Injector(Thread):
    """Goes through `faults` until `ending`; the last one is ended before it ends."""

    def __init__(
        self,
        harness: Harness,
        link: Link | None,
        faults: Iterable[Fault],
        members: Sequence[Leaver],
        processes: Sequence[Leaver],
        tell: Callable[[float, Fault], None],
        ending: Event,
        errors: Errors,
    ) -> None:
        super().__init__(name="soak-faults", daemon=True)
        self._harness = harness
        self._link = link
        self._faults = faults
        self._members, self._processes = cycle(members), cycle(processes)
        self._tell = tell
        self._ending = ending
        self._errors = errors
        self.log: list[Happened] = []

    def run(self) -> None:
        started = time.monotonic()
        for fault in self._faults:
            # One that took longer than planned, as a restart may, is not followed by the next at once.
            peace = PEACE if self.log else 0.0
            if self._ending.wait(max(started + fault.at - time.monotonic(), peace)):
                return
            happened = Happened(fault, time.monotonic() - started)
            self._tell(happened.start, fault)
            self.log.append(happened)
            try:
                self._make(fault)
            except BaseException as error:
                self._errors.defect(f"the fault {fault} could not be made: {type(error).__name__}: {error}")
                return
            finally:
                happened.end = time.monotonic() - started

    def _make(self, fault: Fault) -> None:
        if fault.kind == "close-consumer":
            next(self._members).leave()
        elif fault.kind == "kill-consumer":
            next(self._processes).leave()
        elif fault.kind in ("cut", "blackhole", "delay", "throttle"):
            self._on_the_link(fault)
        elif fault.kind == "clock":
            assert self._harness.advance is not None
            self._harness.advance(fault.amount)
        elif fault.kind in ("restart", "kill"):
            again = self._harness.restart if fault.kind == "restart" else self._harness.kill
            assert again is not None
            again()
        else:
            self._for_a_while(fault)

    def _on_the_link(self, fault: Fault) -> None:
        assert self._link is not None
        try:
            if fault.kind == "cut":
                self._link.cut(fault.direction)
            elif fault.kind == "blackhole":
                self._link.blackhole(fault.direction)
            elif fault.kind == "delay":
                self._link.delay(fault.amount, fault.direction)
            else:
                self._link.throttle(fault.amount, fault.direction)
            self._ending.wait(fault.seconds)
        finally:
            self._link.resume()

    def _for_a_while(self, fault: Fault) -> None:
        harness = self._harness
        begin, end = (harness.pause, harness.unpause) if fault.kind == "pause" else (harness.alarm, harness.clear_alarm)
        assert begin is not None
        assert end is not None
        begin()
        try:
            self._ending.wait(fault.seconds)
        finally:
            end()
