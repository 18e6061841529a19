"""`messaging contract`: the suite, run by the command that everybody has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from messaging_contract.__main__ import _parser


def messaging(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGING_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "messaging.cli", "contract", *arguments],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    (tmp_path / "messaging.toml").write_text('default = "prod"\n[profiles.prod]\nurl = "memory://"\n')
    return tmp_path


def test_a_profile(profile: Path) -> None:
    ended = messaging(profile, "--profile", "prod", "--safe", "-k", "meta.name", "--report", "r.xml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "meta.name  pass" in ended.stdout
    assert (profile / "r.xml").exists()


def test_without_a_name_it_is_the_broker_that_connect_finds(profile: Path, tmp_path: Path) -> None:
    assert messaging(profile, "-k", "meta.name").returncode == 0
    (profile / "messaging.toml").unlink()
    assert messaging(tmp_path, "-k", "meta.name", MESSAGING_URL="memory://").returncode == 0
    ended = messaging(tmp_path, "-k", "meta.name")
    assert ended.returncode == 2
    assert "which broker? Say --profile NAME" in ended.stderr


def test_a_broker_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    ended = messaging(tmp_path, "--broker", "rabbitmq://127.0.0.1:1", "--safe", "-k", "meta.name")
    assert ended.returncode == 1, ended.stdout
    assert "is required and not there" in ended.stdout


def test_wrong_usage(profile: Path) -> None:
    for arguments in (["--strict"], ["--dry-run"], ["--safe", "--report", "r.pdf"], ["--profile", "prodd"]):
        ended = messaging(profile, *arguments)
        assert ended.returncode == 2, ended.stdout
        assert ended.stderr


def test_without_the_extra_it_is_named(profile: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None; from messaging.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "contract", "--safe"], cwd=profile, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("messaging: the contract suite needs pytest, which is not installed")
    assert 'pip install "anybroker[contract]"' in ended.stderr


def test_every_option_is_one_of_the_suite() -> None:
    known = _parser().format_help()
    for option in ("--broker", "--safe", "--strict", "--dry-run", "--delay", "--report", "-k", "-x", "-v"):
        assert option in known
