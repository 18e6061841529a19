"""The whole contract, in parts so that `pytest -n 12` runs them side by side: each has a container of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = 12
REQUIRED = os.environ.get("MESSAGING_REQUIRE", "") not in ("", "0")


@pytest.mark.skipif(
    not REQUIRED and "MESSAGING_IMAGE_REDIS" not in os.environ,
    reason="not run: set MESSAGING_IMAGE_REDIS to an image of Redis 7, such as redis:7",
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_the_contract(part: int) -> None:
    command = [sys.executable, "-m", "messaging_contract", "--broker", "redis_harness:container"]
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [*command, "--require", "--part", f"{part}/{PARTS}"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
