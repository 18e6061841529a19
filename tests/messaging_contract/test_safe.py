"""A safe run on a cluster that others use: it touches nothing of theirs and leaves nothing behind, also interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from messaging import Broker, Queue, Topic
from messaging_contract.brokers import memory_harness
from messaging_contract.clauses import all_clauses
from messaging_contract.harness import Harness
from messaging_contract.runner import Outcome, run_clause
from messaging_contract.safe import _LEFT_OUT, Safety, left_out

from .objects import objects_on

THEIRS = 7
"""Messages in the queue of somebody else."""

SOME = "publish.round-trip or settle.nack or dead_letter.reject or topology.fresh or retry.comes-back or patterns"


@pytest.fixture
def listed(newest: Harness, inside: Callable[[str, str], str]) -> Callable[[], set[str]]:
    return lambda: objects_on(newest, inside)


@pytest.fixture
def theirs(newest: Harness) -> Iterator[tuple[Broker, Queue]]:
    """A queue of somebody else with messages in it, called almost as the suite calls its own."""
    queue = Queue(f"mc-{uuid4().hex[:12]}-theirs")
    with newest.connect(topology=queue) as broker:
        broker.publish_many(queue, range(THEIRS))
        yield broker, queue
        broker.delete(queue)


def suite(newest: Harness, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    # The user's own file: its queues are looked at, and never made.
    (folder / "messaging.toml").write_text(f'[profiles.prod]\nurl = "{newest.url}"\n[topology.queues.never-made]\n')
    command = [sys.executable, "-m", "messaging.cli", "contract", "--profile", "prod", "--safe", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGING_", "PYTEST_"))}
    return subprocess.Popen(command, cwd=folder, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_it_leaves_nothing_and_touches_nothing(
    newest: Harness, listed: Callable[[], set[str]], theirs: tuple[Broker, Queue], tmp_path: Path
) -> None:
    broker, queue = theirs
    before = listed()
    process = suite(newest, tmp_path, "-k", SOME, "--report", "r.md")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert " pass" in output
    assert listed() == before
    assert broker.depth(queue) == THEIRS
    told = (tmp_path / "r.md").read_text("utf-8")
    assert broker.version in told
    assert newest.broker.name == "sqs" or "What the settings of prod do not uphold" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_it_leaves_nothing_when_it_is_interrupted_half_way(
    newest: Harness,
    listed: Callable[[], set[str]],
    theirs: tuple[Broker, Queue],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    broker, queue = theirs
    before = listed()
    process = suite(newest, tmp_path, "-v", "-k", "settle or retry or dead_letter")
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:  # ends with the process
        lines.append(line)
        if sum("PASSED" in each for each in lines) == 3:
            assert listed() != before or newest.broker.name != "rabbitmq"
            process.send_signal(number)
            process.send_signal(number)  # who is impatient loses nothing by it
            break
    output = "".join(lines) + process.communicate(timeout=240)[0]
    assert process.returncode == 128 + number, output
    assert "interrupted: deleting what this run has made" in output
    assert listed() == before, output
    assert broker.depth(queue) == THEIRS


def test_a_dry_run_makes_nothing(newest: Harness, listed: Callable[[], set[str]], tmp_path: Path) -> None:
    before = listed()
    process = suite(newest, tmp_path, "--dry-run")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"prod ({newest.broker.version})" in output
    assert "left out, not in a safe run: it needs the control link" in output
    assert listed() == before


def test_with_strict_a_setting_is_a_failure(newest: Harness, tmp_path: Path) -> None:
    if newest.broker.name != "kafka":
        pytest.skip("one broker whose settings are known to be weak is enough")
    process = suite(newest, tmp_path, "--strict", "-k", "meta.name")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "auto.create.topics.enable of the cluster: true" in output


def test_clauses_that_harm_are_left_out_and_those_named_exist() -> None:
    assert set(_LEFT_OUT) <= {clause.id for clause in all_clauses()}
    assert all(left_out(c) for c in all_clauses() if {"restart", "pause", "link", "wrong_credentials"} & {*c.controls})
    clause = next(c for c in all_clauses() if "link" in c.controls)
    harness = memory_harness()
    Safety().guard(harness)
    outcome, why = run_clause(clause, harness)
    assert outcome is Outcome.NOT_RUN
    assert "not in a safe run" in why


def test_the_account_is_of_what_is_there() -> None:
    harness = memory_harness()
    connect = harness.connect
    safety = Safety()
    safety.guard(harness)
    broker = harness.connect(topology=Queue("mc-kept"))
    broker.declare(Topic("mc-topic", "one", "two"))
    broker.declare(Queue("mc-gone"))
    broker.delete(Queue("mc-gone"))
    broker.delete(Topic("mc-topic", "one"))
    assert {made.name for made in safety._made} == {"mc-kept", "mc-topic"}
    safety.sweep()
    safety.sweep()
    assert safety._made == {}
    assert broker.closed
    with connect() as after:
        assert {finding.state for finding in after.inspect([Queue("mc-kept"), Topic("mc-topic", "two")])} == {"missing"}
    with pytest.raises(Exception, match="the run has ended"):
        harness.connect()
