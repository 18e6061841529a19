"""The fifth adapter as somebody else's: installed beside the library, its own tests run on what is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "messaging_redis"
REQUIRED = os.environ.get("MESSAGING_REQUIRE", "") not in ("", "0")


@pytest.mark.xdist_group("messaging_redis")
@pytest.mark.timeout(900)
def test_its_own_tests_and_the_whole_contract(tmp_path: Path) -> None:
    if not REQUIRED:
        pytest.importorskip("redis")
    # Not into the environment: everything else is tested as it is without a fifth adapter.
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--target", str(tmp_path), str(FOLDER)], check=True)
    contract = REQUIRED or "MESSAGING_IMAGE_REDIS" in os.environ
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "12" if contract else "0",
            "-p",
            "no:cacheprovider",
            str(FOLDER / "tests"),
        ],
        env={**environment, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if not contract:
        pytest.skip("its own tests pass; the contract is not run: set MESSAGING_IMAGE_REDIS to an image of Redis 7")
