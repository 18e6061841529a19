"""Commands inside the container of a broker: what an operator would type there."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest


def run_inside(url: str, script: str) -> str:
    """Runs `script` with sh in the container of the broker at `url`; returns what it printed.

    Skips the test where the broker is in no container of this machine's engine.
    """
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        pytest.skip(f"no engine to ask for the container of {url}: {error}")
    try:
        found = [each for each in client.containers.list(ignore_removed=True) if _serves(each, str(urlsplit(url).port))]
        if not found:
            pytest.skip(f"{url} is in no container here")
        result = found[0].exec_run(["sh", "-c", script])
        output: str = result.output.decode()
        assert result.exit_code == 0, output
        return output
    finally:
        client.close()


def _serves(container: Any, port: str) -> bool:
    """Whether it publishes `port`, or has it told to its clients: that of a proxy in front of it."""
    published = [each["HostPort"] for several in container.ports.values() for each in several or ()]
    return port in published or any(f"127.0.0.1:{port}" in value for value in container.attrs["Config"]["Env"] or ())
