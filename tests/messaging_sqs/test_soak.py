"""A short soak: nothing confirmed is lost, nothing else comes, and each key keeps its order, through faults."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from messaging_contract.harness import Harness


@pytest.mark.only("sqs:ministack")
def test_a_short_soak(sqs: Harness, short_soak: Callable[[Harness, float], None]) -> None:
    short_soak(sqs, 20.0)
