"""The PostgreSQL of a test run: the one that the environment names, else a container, started at its first use."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from messaging_contract.brokers import Settings
from messaging_contract.containers import BrokerNotReady, ContainersUnavailable
from messaging_contract.containers.postgresql import PostgreSQLContainer

POSTGRESQL: pytest.StashKey[PostgreSQL] = pytest.StashKey()


class PostgreSQL:
    """MESSAGING_TEST_POSTGRESQL: the URL of a running one. MESSAGING_REQUIRE: not there is a failure, else a skip."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._given = environment.get("MESSAGING_TEST_POSTGRESQL", "")
        self._require = Settings.of([], None, False, environment).require
        self._container: PostgreSQLContainer | None = None
        self._missing = ""

    def url(self) -> str:
        """Reaches or starts it, once. Ends the test when it is not there."""
        if self._given:
            return self._given
        if self._container is None and not self._missing:
            try:
                self._container = PostgreSQLContainer().start()
            except (ContainersUnavailable, BrokerNotReady) as error:
                self._missing = str(error)
        if self._container is not None:
            return self._container.url
        if self._require:
            pytest.fail(f"postgresql is required and not there: {self._missing}", pytrace=False)
        pytest.skip(f"not run: postgresql: {self._missing}")

    def close(self) -> None:
        """Stops what was started."""
        if self._container is not None:
            self._container.stop()
