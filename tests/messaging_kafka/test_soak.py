"""A short soak: nothing confirmed is lost, nothing else comes, and each key keeps its order, through faults."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from messaging_contract.harness import Harness


@pytest.mark.only("kafka:4.2")
def test_a_short_soak(kafka: Harness, short_soak: Callable[[Harness, float], None]) -> None:
    short_soak(kafka, 20.0)
