"""Which PostgreSQL the tests run on, and what happens where there is none."""

from __future__ import annotations

import pytest

from .databases import PostgreSQL


def test_a_given_one_comes_before_a_container() -> None:
    given = PostgreSQL({"MESSAGING_TEST_POSTGRESQL": "postgresql+psycopg://here/db", "MESSAGING_REQUIRE": "1"})
    assert given.url() == "postgresql+psycopg://here/db"
    given.close()


def test_a_missing_one_is_a_skip_and_where_required_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    with pytest.raises(pytest.skip.Exception, match="not run: postgresql: No container engine"):
        PostgreSQL({}).url()
    with pytest.raises(pytest.fail.Exception, match="postgresql is required and not there"):
        PostgreSQL({"MESSAGING_REQUIRE": "1"}).url()
