"""What a soak shows while it runs: one line that moves on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from messaging_contract.soak.run import Sample
from messaging_contract.soak.schedule import Fault

if TYPE_CHECKING:
    from rich.status import Status

_EVERY = 5.0
"""Seconds between two lines where nothing moves."""


class Display:
    """Is told what goes on (a `Watcher`) and shows it."""

    def __init__(self, write: Callable[[str], None], status: Status | None = None) -> None:
        self.line = write
        self._status = status
        self._shown = 0.0
        self._before = Sample(0.0, 0, 0)

    def progress(self, sample: Sample, text: str) -> None:
        now = time.monotonic()
        if now - self._shown < (1.0 if self._status else _EVERY):
            return
        seconds = max(sample.at - self._before.at, 0.001)
        confirmed = (sample.confirmed - self._before.confirmed) / seconds
        received = (sample.received - self._before.received) / seconds
        self._shown, self._before = now, sample
        if self._status is not None:
            words = (
                f"{sample.at:.0f} s: {sample.confirmed:,} confirmed ({confirmed:,.0f}/s), {sample.received:,} received"
            )
            self._status.update("; ".join(filter(None, (words, text))))
        else:
            words = (
                f"{sample.at:7.1f} s  {sample.confirmed:>11,} confirmed ({confirmed:,.0f}/s)  "
                f"{sample.received:>11,} received ({received:,.0f}/s)"
            )
            self.line("  ".join(filter(None, (words, text))))

    def fault(self, at: float, fault: Fault) -> None:
        self.line(f"{at:7.1f} s  fault: {fault}")

    def stop(self) -> None:
        """Takes the moving line away."""
        if self._status is not None:
            self._status.stop()


@contextmanager
def display() -> Iterator[Display]:
    """A moving line where there is a terminal and rich, plain lines otherwise."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            console = Console()
            with console.status("connecting") as status:
                yield Display(lambda text: console.print(text, markup=False, highlight=False), status)
            return
    yield Display(lambda text: print(text, flush=True))
