"""The fixtures behind a clause, registered by `ContractSession` for its own run only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from messaging_contract.brokers import Candidate, Unavailable
from messaging_contract.deadline import within
from messaging_contract.facts import Facts, facts_of
from messaging_contract.harness import Harness

UNAVAILABLE: pytest.StashKey[dict[str, str]] = pytest.StashKey()
"""Why a broker is not there, by its name."""
FACTS: pytest.StashKey[dict[str, Facts]] = pytest.StashKey()
"""What each broker that is there told of itself, by its name."""
REQUIRED: pytest.StashKey[bool] = pytest.StashKey()
"""Whether a broker that is not there is a failure."""
CLOSE: pytest.StashKey[float] = pytest.StashKey()
"""Seconds for a harness to close."""

_OPEN = 600.0
"""Seconds for a container to be pulled, started and answer."""


@pytest.fixture(scope="session")
def contract_broker(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """The broker of this run of a clause: started for its first clause, closed after its last."""
    candidate: Candidate = request.param
    unavailable = request.config.stash[UNAVAILABLE]
    harness = None
    if candidate.name not in unavailable:
        try:
            harness = within(_OPEN, f"reaching {candidate.name}", candidate.open)
        except Unavailable as error:
            unavailable[candidate.name] = str(error)
    if harness is None:
        reason = unavailable[candidate.name]
        if request.config.stash[REQUIRED]:
            pytest.fail(f"{candidate.name} is required and not there: {reason}", pytrace=False)
        pytest.skip(f"not run: {candidate.name}: {reason}")
    harness.name = candidate.name
    request.config.stash[FACTS][candidate.name] = facts_of(harness)
    try:
        yield harness
    finally:
        within(request.config.stash[CLOSE], f"closing {candidate.name}", harness.close)


@pytest.fixture
def bench(contract_broker: Harness) -> Harness:
    """What a clause's function names as its argument; the runner makes the Bench, one a run of the function."""
    return contract_broker
