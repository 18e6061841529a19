"""Several brokers at a time, a process each, the slow ones in parts: the clauses wait far more than they compute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from messaging_contract.brokers import Settings, candidates
from messaging_contract.clause import Clause
from messaging_contract.report import Matrix, summary, write
from messaging_contract.runner import Outcome, Result
from messaging_contract.terminal import show

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Child:
    """One broker, tested by a process of its own.

    status: 0 only if all of it held; a process that a signal ended has its number. output: what it printed.
    """

    name: str
    status: int
    output: str
    matrix: Matrix


@dataclass(frozen=True)
class _Target:
    """A broker, or one of the parts that its clauses are divided into."""

    name: str
    arguments: tuple[str, ...]


def run(
    settings: Settings, jobs: int, chosen: Sequence[str], clauses: list[Clause], reports: list[Path], say: Say
) -> int:
    """Runs `jobs` brokers or parts at a time, and reports as one run. Returns the exit status.

    chosen: further arguments for each. clauses: all there are, the rows of the matrix.
    """
    started = time.monotonic()
    names = [candidate.name for candidate in candidates(settings)]
    targets = _targets(settings, names, divided=not chosen and jobs >= parts(settings))
    left = Counter(target.name for target in targets)
    done: list[_Child] = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        running = []
        for number, target in enumerate(targets):
            arguments = [*target.arguments, *chosen, *(["--require"] if settings.require else [])]
            running.append(pool.submit(_run, target.name, arguments, clauses, Path(scratch) / f"{number}.json"))
        for future in as_completed(running):
            child = future.result()
            done.append(child)
            if child.status:
                say(child.output)
            left[child.name] -= 1
            if not left[child.name]:
                say(f"{child.name}: {summary(_merge([c for c in done if c.name == child.name], clauses), child.name)}")
    matrix = _merge(sorted(done, key=lambda child: names.index(child.name)), clauses)
    show(matrix, say, sys.stdout.isatty(), 120)
    for path in reports:
        write(matrix, path)
        say(f"report: {path}")
    say(f"{len(names)} brokers in {len(targets)} parts, {jobs} at a time, in {time.monotonic() - started:.0f} s")
    say(_closing(matrix))
    return next((child.status for child in done if child.status), 0)


def parts(settings: Settings) -> int:
    """How many processes have something to do. A broker that the suite starts may be started once a part."""
    return len(settings.brokers) + sum(_parts(spec) for spec in settings.containers)


def _parts(spec: str) -> int:
    try:
        from messaging_contract.containers import catalogue
    except ImportError:
        return 1
    return catalogue.find(spec).parts


def _targets(settings: Settings, names: list[str], divided: bool) -> list[_Target]:
    own = len(settings.brokers)
    targets = [_Target(n, ("--broker", b)) for n, b in zip(names[:own], settings.brokers, strict=True)]
    for name, spec in zip(names[own:], settings.containers, strict=True):
        count = _parts(spec) if divided else 1
        for part in range(1, count + 1):
            targets.append(_Target(name, ("--containers", spec, "--part", f"{part}/{count}")))
    return targets


def _run(name: str, arguments: list[str], clauses: list[Clause], report: Path) -> _Child:
    command = [sys.executable, "-m", "messaging_contract", "--jobs", "1", "--report", str(report), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "MESSAGING_CONTAINERS"}
    ended = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = ended.stdout.decode(errors="replace")
    if report.exists():
        return _Child(name, abs(ended.returncode), output, _read(report, clauses))
    unavailable = {name: f"its process ended with {ended.returncode}"}
    return _Child(name, abs(ended.returncode) or 1, output, Matrix(clauses, [name], [], unavailable))


def _read(report: Path, clauses: list[Clause]) -> Matrix:
    data = json.loads(report.read_text("utf-8"))
    unavailable = {b["name"]: b["unavailable"] for b in data["brokers"] if b["unavailable"]}
    results = [
        Result(row["id"], broker, Outcome(cell["outcome"]), cell["seconds"], cell["detail"])
        for row in data["clauses"]
        for broker, cell in row["results"].items()
    ]
    run = {row["id"] for row in data["clauses"]}
    return Matrix([c for c in clauses if c.id in run], [b["name"] for b in data["brokers"]], results, unavailable)


def _merge(children: list[_Child], clauses: list[Clause]) -> Matrix:
    run = {clause.id for child in children if child.matrix.results for clause in child.matrix.clauses}
    return Matrix(
        [clause for clause in clauses if clause.id in run],
        list(dict.fromkeys(child.name for child in children)),
        [result for child in children for result in child.matrix.results],
        {name: reason for child in children for name, reason in child.matrix.unavailable.items()},
    )


def _closing(matrix: Matrix) -> str:
    counts: Counter[Outcome] = Counter()
    for broker in matrix.brokers:
        counts += matrix.counts(broker)
    passed = counts[Outcome.PASS] + counts[Outcome.EMULATED] + counts[Outcome.REFUSED]
    return f"{passed} passed, {counts[Outcome.FAILED]} failed, {counts[Outcome.NOT_RUN]} skipped"
