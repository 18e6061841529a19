"""Adapters that lie, hang or lose their broker: told in words, by the deadline, and the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ADAPTERS = """
import ctypes
import json
import time
from dataclasses import replace

import messaging
from messaging.capabilities import native, unsupported
from messaging.errors import BrokerUnavailable
from messaging_contract.harness import Harness
from messaging_memory import MemoryDriver, MemoryServer
from messaging_memory.driver import MemoryReceiver


def harness(kind, **fields):
    server = MemoryServer()

    def connect(topology=None, create=True, **options):
        driver = kind(kind.Options(server=server))
        driver.open()
        broker = messaging.Broker(driver, create=create)
        broker.declare(messaging.Topology.of(topology))
        return broker

    return Harness("mine", connect, quiet=0.1, patience=2.0, pace=0.25, **fields)


class Boaster(MemoryDriver):
    '''Declares what it cannot do.'''

    def receiver(self, source, options):
        receiver = super().receiver(source, options)
        receiver.replay = lambda since: None
        return receiver


class Modest(MemoryDriver):
    '''Declares unsupported what works.'''

    capabilities = replace(MemoryDriver.capabilities, nack_delay=unsupported("so it says"))


class Deaf(MemoryDriver):
    '''Purging hangs in C code that has let go of the GIL, and that no signal ends.'''

    def purge(self, source):
        libc = ctypes.CDLL(None)
        while True:
            libc.sleep(1000)


class Selfish(MemoryDriver):
    '''Purging hangs in C code that holds the GIL.'''

    def purge(self, source):
        ctypes.PyDLL(None).sleep(1000)


class Stubborn(MemoryDriver):
    '''Cannot be closed.'''

    def close(self):
        time.sleep(1000)


class Mortal(MemoryDriver):
    '''Its broker dies when something is purged.'''

    dead = False

    def purge(self, source):
        Mortal.dead = True
        raise BrokerUnavailable("the connection was lost")

    def open(self):
        if Mortal.dead:
            raise BrokerUnavailable("connection refused")
        super().open()

    def declare(self, topology, create):
        if Mortal.dead:
            time.sleep(600)
        super().declare(topology, create)

    def ping(self):
        if Mortal.dead:
            raise BrokerUnavailable("connection refused")


boaster = lambda: harness(Boaster)
modest = lambda: harness(Modest)
deaf = lambda: harness(Deaf)
selfish = lambda: harness(Selfish)
stubborn = lambda: harness(Stubborn)
mortal = lambda: harness(Mortal)
"""

SOME = "topology.purge or topology.fresh or topology.names or topology.idempotent"


def suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "adapters_that_lie.py").write_text(ADAPTERS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGING_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "messaging_contract", *arguments, "--report", "r.json"],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def results(folder: Path, broker: str) -> dict[str, tuple[str, str]]:
    """The outcome and detail of each clause."""
    data = json.loads((folder / "r.json").read_text("utf-8"))
    cells = {row["id"]: row["results"].get(broker) for row in data["clauses"]}
    return {id: (cell["outcome"], cell["detail"]) for id, cell in cells.items() if cell}


def test_one_that_declares_what_does_not_work(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "adapters_that_lie:boaster", "-k", "groups.replay or groups.retain")
    assert ended.returncode == 1
    found = results(tmp_path, "adapters_that_lie:boaster")
    assert found["groups.replay-beginning"][0] == "failed"
    assert found["groups.retain"][0] == "pass"


def test_one_that_declares_unsupported_what_works(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "adapters_that_lie:modest", "-k", "unsupported-refuses or settle.nack-delay")
    assert ended.returncode == 1
    found = results(tmp_path, "adapters_that_lie:modest")
    assert {id for id, (outcome, _) in found.items() if outcome == "failed"} >= {
        "meta.unsupported-refuses", "settle.nack-delay"
    }  # fmt: skip
    assert "UnsupportedCapability" in found["meta.unsupported-refuses"][1]


def test_one_that_hangs_in_c_code_is_told_with_its_stack_and_the_run_goes_on(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "adapters_that_lie:deaf", "-k", SOME, "--deadline", "1")
    assert ended.returncode == 1
    found = results(tmp_path, "adapters_that_lie:deaf")
    outcome, why = found["topology.purge"]
    assert outcome == "failed"
    assert "topology.purge hangs: not done after 1 s" in why
    assert "libc.sleep(1000)" in why
    assert found["topology.fresh-is-empty"][0] == "pass"


def test_one_that_hangs_with_the_gil_costs_its_process_and_another_goes_on(tmp_path: Path) -> None:
    both = ("--broker", "adapters_that_lie:selfish", "--broker", "memory://")
    ended = suite(tmp_path, *both, "-j", "2", "-k", SOME, "--deadline", "0.5")
    assert ended.returncode == 1, ended.stdout
    found = results(tmp_path, "adapters_that_lie:selfish")
    outcome, why = found["topology.purge"]
    assert outcome == "failed"
    assert "it hangs where no thread can run" in why
    assert "in purge" in why
    assert found["topology.fresh-is-empty"][0] == "pass"
    assert found["topology.names"][0] == "pass"
    assert {outcome for outcome, _ in results(tmp_path, "memory").values()} == {"pass"}


def test_one_that_hangs_with_the_gil_alone_ends_with_its_stack(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "adapters_that_lie:selfish", "-k", SOME, "--deadline", "0.5")
    assert ended.returncode == 1
    assert "in purge" in ended.stderr


def test_one_that_cannot_be_closed_does_not_keep_the_run_from_ending(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "adapters_that_lie:stubborn", "-k", "lifecycle.ping", "--deadline", "1")
    assert ended.returncode == 1
    assert "closing adapters_that_lie:stubborn hangs" in ended.stdout


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_broker_that_dies_is_told_once_and_nobody_waits_for_it(tmp_path: Path, jobs: str) -> None:
    started = time.monotonic()
    brokers = ("--broker", "adapters_that_lie:mortal", "--broker", "memory://")
    ended = suite(tmp_path, *brokers, "-j", jobs, "-k", "topology or settle.nack")
    assert time.monotonic() - started < 60
    assert ended.returncode == 1
    found = results(tmp_path, "adapters_that_lie:mortal")
    assert found["topology.purge"][0] == "failed"
    gone = {id: why for id, (outcome, why) in found.items() if outcome == "not run" and "control" not in why}
    assert len(gone) > 3
    assert set(gone.values()) == {"the broker is gone since topology.purge: BrokerUnavailable: connection refused"}
    assert "failed" not in {outcome for outcome, _ in results(tmp_path, "memory").values()}


def test_names_of_an_earlier_run_disturb_nobody(tmp_path: Path) -> None:
    (tmp_path / "left_over.py").write_text(
        "import messaging\n"
        "from messaging_contract.brokers import memory_harness\n"
        "def full():\n"
        "    harness = memory_harness()\n"
        "    for number in range(20):\n"
        "        queue = messaging.Queue(f'mc-{number:012x}-1')\n"
        "        harness.broker.declare([queue, messaging.Topic(f'mc-{number:012x}-2', 'g')])\n"
        "        harness.broker.publish(queue, number, headers={'test-id': f'{number:012x}'})\n"
        "    return harness\n"
    )
    ended = suite(tmp_path, "--broker", "left_over:full", "-k", "publish.round-trip or topology")
    assert ended.returncode == 0, ended.stdout
