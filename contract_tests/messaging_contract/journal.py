"""What a run has done so far, on disk: a process that dies in one clause is followed by one that goes on behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from messaging_contract.runner import Outcome, Result


class Journal:
    """A file with a line when a clause begins and one when it has ended. Used by one process at a time.

    `results` are those of the processes before this one: a clause that began and never ended killed its process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stacks = path.with_suffix(".stacks")
        """Where the watchdog writes to."""
        self.results = list(self._read())

    @property
    def begun(self) -> set[str]:
        """The ids of all clauses that need not be begun again."""
        return {result.clause for result in self.results}

    def begin(self, clause: str, broker: str) -> None:
        self._write({"begun": clause, "broker": broker})

    def end(self, result: Result) -> None:
        self._write(
            {
                "ended": result.clause,
                "broker": result.broker,
                "outcome": result.outcome.value,
                "seconds": result.seconds,
                "detail": result.detail,
            }
        )

    def _write(self, entry: dict[str, object]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _read(self) -> Iterable[Result]:
        if not self._path.exists():
            return
        begun: dict[str, str] = {}
        for line in self._path.read_text().splitlines():
            entry = json.loads(line)
            if "begun" in entry:
                begun[entry["begun"]] = entry["broker"]
            else:
                begun.pop(entry["ended"], None)
                outcome = Outcome(entry["outcome"])
                yield Result(entry["ended"], entry["broker"], outcome, entry["seconds"], entry["detail"])
        for clause, broker in begun.items():
            stacks = self.stacks.read_text() if self.stacks.exists() else ""
            why = f"it hangs where no thread can run:\n{stacks}" if stacks else "it ended its process"
            failed = Result(clause, broker, Outcome.FAILED, 0.0, why)
            self.end(failed)
            yield failed
