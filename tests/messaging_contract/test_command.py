"""The command and the pytest plugin as somebody else uses them: exit status, what is said, harnesses of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = """
import os
import signal
from dataclasses import replace

import messaging
from messaging.capabilities import unsupported
from messaging_contract.harness import Harness
from messaging_memory import MemoryDriver, MemoryServer


def honest():
    server = MemoryServer()
    return Harness("mine", lambda **options: messaging.connect("memory://", **{"server": server, **options}), quiet=0.1)


class Liar(MemoryDriver):
    capabilities = replace(MemoryDriver.capabilities, ttl=unsupported("so it says"))


def lying():
    server = MemoryServer()

    def connect(topology=None, create=True, **options):
        driver = Liar(Liar.Options(server=server))
        driver.open()
        broker = messaging.Broker(driver, create=create)
        broker.declare(messaging.Topology.of(topology))
        return broker

    return Harness("mine", connect, quiet=0.1)


def dying():
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "harnesses.py").write_text(HARNESS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGING_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def suite(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "messaging_contract", *arguments, **environment)


def test_a_harness_of_ones_own(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "harnesses:honest", "-k", "publish.round-trip or meta", "--report", "r.json")
    assert ended.returncode == 0, ended.stdout
    assert "publish.round-trip        pass" in ended.stdout
    assert (tmp_path / "r.json").exists()


def test_a_profile(tmp_path: Path) -> None:
    (tmp_path / "messaging.toml").write_text('[profiles.dev]\nurl = "memory://"\n')
    ended = suite(tmp_path, "--broker", "dev", "-k", "meta.name or bad_input.profile")
    assert ended.returncode == 0, ended.stdout
    assert "meta.name          pass" in ended.stdout


def test_an_adapter_that_lies_is_found(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "harnesses:lying", "-k", "publish.ttl-expired or meta.unsupported")
    assert ended.returncode == 1
    assert "meta.unsupported-refuses  failed" in ended.stdout
    assert "publish.ttl-expired       failed" in ended.stdout


def test_a_broker_whose_process_dies_is_a_failure(tmp_path: Path) -> None:
    both = ("--broker", "harnesses:dying", "--broker", "harnesses:honest")
    ended = suite(tmp_path, *both, "--jobs", "2", "-k", "publish.round-trip")
    assert ended.returncode != 0, ended.stdout
    assert "harnesses:dying: not run: its process ended with -11" in ended.stdout
    assert "harnesses:honest: 1 pass" in ended.stdout


def test_parts_are_the_whole(tmp_path: Path) -> None:
    def ran(*part: str) -> list[str]:
        ended = suite(tmp_path, "--broker", "memory://", "-k", "meta or headers", "--report", "r.json", *part)
        assert ended.returncode == 0, ended.stdout
        return [row["id"] for row in json.loads((tmp_path / "r.json").read_text("utf-8"))["clauses"]]

    parts = [ran("--part", f"{part}/3") for part in (1, 2, 3)]
    assert all(parts)
    assert sorted(id for part in parts for id in part) == sorted(ran())


def test_two_brokers_of_one_name_are_refused(tmp_path: Path) -> None:
    ended = suite(tmp_path, "--broker", "harnesses:honest", "--broker", "harnesses:honest")
    assert ended.returncode == 2
    assert "harnesses:honest was asked for twice" in ended.stderr


def test_as_a_pytest_plugin(tmp_path: Path) -> None:
    ended = run(
        tmp_path, "-m", "pytest", "--pyargs", "messaging_contract", "--broker", "memory://", "-k", "publish.round-trip",
        "--contract-report", "r.html",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert "publish.round-trip  pass" in ended.stdout
    assert "publish.round-trip" in (tmp_path / "r.html").read_text("utf-8")


def test_a_mistyped_broker_is_one_error_of_usage(tmp_path: Path) -> None:
    for command in (["messaging_contract"], ["pytest", "--pyargs", "messaging_contract"]):
        ended = run(tmp_path, "-m", *command, "--broker", "rabitmq://localhost")
        assert ended.returncode in (2, 4)
        assert "did you mean 'rabbitmq'" in ended.stderr
        assert ended.stdout == ""


@pytest.mark.parametrize(("require", "status", "outcome"), [([], 5, "not run"), (["--require"], 1, "failed")])
def test_without_a_container_engine(tmp_path: Path, require: list[str], status: int, outcome: str) -> None:
    ended = suite(
        tmp_path, "--containers", "rabbitmq", "-k", "meta.name", *require, DOCKER_HOST="tcp://127.0.0.1:1"
    )  # fmt: skip
    assert ended.returncode == status, ended.stdout
    assert f"meta.name  {outcome}" in ended.stdout
    assert "Start Docker" in ended.stdout
    assert ("nothing was run" in ended.stdout) == (not require)


def test_one_broker_that_is_not_there_spoils_no_run_of_others(tmp_path: Path) -> None:
    both = ("--broker", "memory://", "--containers", "rabbitmq")
    for jobs in ("1", "2"):
        ended = suite(tmp_path, *both, "-j", jobs, "-k", "meta.name", DOCKER_HOST="tcp://127.0.0.1:1")
        assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("broker", ["memory://", "harnesses:honest"])
def test_nothing_that_matches_is_no_success(tmp_path: Path, broker: str) -> None:
    assert suite(tmp_path, "--broker", broker, "-k", "no_such_clause").returncode != 0


def test_wrong_arguments(tmp_path: Path) -> None:
    two = ["--broker", "memory://", "--broker", "harnesses:honest", "-j", "2"]
    for arguments in (
        ["--containers", "rabitmq"], ["--broker", "memory://", "--report", "r.pdf"], [*two, "-x"], [*two, "-v"],
        ["--broker", "memory://", "--part", "3"], ["--broker", "memory://", "--part", "0/2"],
        ["--broker", "memory://", "--part", "3/2"], [*two, "--part", "1/2"],
    ):  # fmt: skip
        ended = suite(tmp_path, *arguments)
        assert ended.returncode == 2
        assert "error:" in ended.stderr
    ended = suite(tmp_path, "--broker", "harnesses:absent", "-k", "meta.name")
    assert ended.returncode == 1
    assert "is not a module and a function in it" in ended.stdout


def test_what_a_messaging_toml_declares_is_never_made(tmp_path: Path) -> None:
    # A topology that the broker could not hold would fail every clause that connects.
    (tmp_path / "messaging.toml").write_text(
        '[profiles.dev]\nurl = "memory://"\n[topology.queues.jobs]\nnative.memory.wrong = 1\n'
    )
    ended = suite(tmp_path, "--broker", "dev", "-k", "publish.round-trip or lifecycle.idempotent")
    assert ended.returncode == 0, ended.stdout


def test_a_capability_that_is_declared_and_not_proven_fails_the_whole_run(tmp_path: Path) -> None:
    code = (
        "from messaging_contract import __main__, clauses, session\n"
        "from messaging_contract.clauses import test_meta as only\n"
        "session.all_clauses = lambda: [only.test_name.clause, only.test_unsupported_refuses.clause]\n"
    )
    (tmp_path / "run.py").write_text(
        f"{code}raise SystemExit(__main__.main(['--broker', 'memory://', '-k', 'meta.name or meta.unsupported']))\n"
    )
    ended = run(tmp_path, "run.py")
    assert ended.returncode == 1, ended.stdout
    assert "memory: lag is declared native, and no clause that needs it has held" in ended.stdout
