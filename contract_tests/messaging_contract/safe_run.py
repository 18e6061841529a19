"""`python -m messaging_contract --safe`: the clauses that are safe on a cluster which others use, and its settings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from messaging.config import load
from messaging.errors import MessagingError
from messaging.topology_file import read_topology
from messaging_contract.brokers import Settings, Unavailable, candidates
from messaging_contract.clauses import all_clauses
from messaging_contract.harness import Harness
from messaging_contract.safe import VOLUME, Safety, interruptible, left_out, probes
from messaging_contract.session import ContractSession
from messaging_contract.sql.database import PREFIX


def run(settings: Settings, reports: list[Path], arguments: list[str], delays: Sequence[float], strict: bool) -> int:
    """Returns the exit status: 1 when a clause failed, or nothing can be published; with `strict` also for findings.

    The settings of what the configuration file here declares are looked at too. Raises ConfigurationError.
    """
    safety = Safety(read_topology(load().get("topology", {})), tuple(delays))
    session = ContractSession(settings, reports, safety=safety)
    # pytest captures stderr, and what is said while it does would never be seen.
    stderr = os.dup(2)
    with interruptible(lambda text: _write(stderr, text)) as interrupted:
        try:
            status = int(pytest.main(arguments, plugins=[session]))
        except KeyboardInterrupt:
            status = 1
        finally:
            safety.sweep()  # has nothing left to do, unless the interruption hit the one at the end of the run
    if interrupted():
        return interrupted()
    found = [concern for concern in safety.concerns if concern.seen]
    if found:
        print(f"\n{len(found)} settings do not uphold the contract: see above")
    hurt = any(concern.stops for concern in found) or (strict and bool(found))
    return status or int(hurt)


def _write(descriptor: int, text: str) -> None:
    os.write(descriptor, f"{text}\n".encode())


def dry_run(settings: Settings) -> int:
    """Prints what a safe run would do on each broker, and makes nothing. Returns the exit status."""
    status = 0
    for candidate in candidates(settings):
        try:
            harness = candidate.open()
        except Unavailable as error:
            print(f"{candidate.name}: not there: {error}")
            status = 1
            continue
        try:
            print(f"{candidate.name}{_told(harness)}")
            print(f"  In {_database(settings)}: tables called {PREFIX} and 12 hexadecimal digits.")
        except MessagingError as error:
            print(f"{candidate.name}: {error}")
            status = 1
        finally:
            harness.close()
    return status


def _database(settings: Settings) -> str:
    return "a temporary SQLite file" if settings.database is None else "the database"


def _told(harness: Harness) -> str:
    broker = harness.broker
    reasons = Counter(filter(None, map(left_out, all_clauses())))
    lines = [f" ({broker.version})" if broker.version else ""]
    lines += [
        f"  {len(all_clauses()) - reasons.total()} clauses, one at a time, each with queues and topics of its own,",
        "  called mc-, 12 hexadecimal digits, and a number. At most "
        f"{min(harness.volume, VOLUME)} messages a clause, of up to 4 MiB.",
        "  All of it is deleted when the clause ends, also when the run is interrupted. For one queue and one topic:",
    ]
    lines += [f"    {part}" for part in broker.plan(probes(broker), delays=[1.0])]
    lines += [f"  {count} clauses left out, {reason}" for reason, count in reasons.most_common()]
    return "\n".join(lines)
