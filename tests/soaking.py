"""Short soaks, as part of the tests of each adapter."""

from __future__ import annotations

from messaging_contract.harness import Harness
from messaging_contract.soak.report import lines
from messaging_contract.soak.run import Plan, Sample, soak
from messaging_contract.soak.schedule import Fault, choose

_SLOW = {"restart", "kill", "alarm"}
"""What takes long stays out of a short one: each has a clause of its own."""


class Silent:
    """Shows nothing."""

    def progress(self, sample: Sample, text: str) -> None: ...

    def fault(self, at: float, fault: Fault) -> None: ...


def soak_for(harness: Harness, seconds: float) -> None:
    """Every quick fault that can be made there. Fails when the guarantee was not upheld."""
    kinds = set(choose("all", harness)[0]) - _SLOW
    if harness.joined is not None:  # the share of a killed member stalls until its session ends, 45 s
        kinds.discard("kill-consumer")
    found = soak(harness, Plan(11, tuple(sorted(kinds)), seconds), Silent())
    assert found.upheld, "\n".join(lines(found))
    assert found.confirmed > 100
    assert found.faults
