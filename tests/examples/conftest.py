from __future__ import annotations

import os

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`broker_url`: the memory broker, and the real ones that the environment names."""
    if "broker_url" in metafunc.fixturenames:
        real = []
        for name in ("RABBITMQ", "KAFKA", "SQS"):
            url = os.environ.get(f"MESSAGING_TEST_{name}")
            marks = () if url else pytest.mark.skip(f"not run: MESSAGING_TEST_{name} is not set")
            real.append(pytest.param(url, id=name.lower(), marks=marks))
        metafunc.parametrize("broker_url", [pytest.param("memory://", id="memory"), *real])
