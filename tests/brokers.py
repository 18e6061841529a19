"""The real brokers of a test run: those that the environment names, else containers, each started at its first use."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from messaging_contract.brokers import Candidate, Settings, Unavailable, candidates
from messaging_contract.harness import Harness

CONTAINERS = {
    "rabbitmq": ("rabbitmq:3.10", "rabbitmq:4"),
    "kafka": ("kafka:4.1", "kafka:4.2"),
    "sqs": ("sqs:elasticmq", "sqs:ministack"),
}
"""What the tests of each adapter run on where nothing else is said."""

BROKERS: pytest.StashKey[Brokers] = pytest.StashKey()


class Brokers:
    """The brokers of one run, by the environment as it was when the run began.

    MESSAGING_TEST_RABBITMQ, _KAFKA and _SQS hold URLs of running brokers, separated by spaces. MESSAGING_REQUIRE: a
    broker that is not there is a failure, else it is a skip.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._require = Settings.of([], None, False, self._environment).require
        self._open: dict[str, Harness] = {}
        self._missing: dict[str, str] = {}

    def choose(self, adapter: str, only: tuple[str, ...] = ()) -> list[Candidate]:
        """The brokers that a test of `adapter` runs on. `only`: of the containers, these; a given URL is taken."""
        if urls := self._environment.get(f"MESSAGING_TEST_{adapter.upper()}", "").split():
            return candidates(Settings(brokers=tuple(urls)))
        found = candidates(Settings(containers=CONTAINERS[adapter]))
        if adapter == "sqs" and not self._require and not _engine_answers():
            found += candidates(Settings(brokers=("sqs+moto://",)))
        return [candidate for candidate in found if not only or candidate.name in only]

    def open(self, candidate: Candidate) -> Harness:
        """Reaches or starts it, once. Ends the test when it is not there."""
        name = candidate.name
        if name not in self._open and name not in self._missing:
            try:
                self._open[name] = candidate.open()
            except Unavailable as error:
                self._missing[name] = str(error)
        if name in self._open:
            return self._open[name]
        if self._require:
            pytest.fail(f"{name} is required and not there: {self._missing[name]}", pytrace=False)
        pytest.skip(f"not run: {name}: {self._missing[name]}")

    def close(self) -> None:
        """Stops what was started."""
        while self._open:
            self._open.popitem()[1].close()


def _engine_answers() -> bool:
    from messaging_contract.containers import ContainersUnavailable, engine

    try:
        engine.check()
    except ContainersUnavailable:
        return False
    return True
