"""Which brokers the tests of the adapters run on, and what happens where one is not there."""

from __future__ import annotations

import pytest

from messaging_contract.brokers import Candidate, Unavailable, memory_harness
from messaging_contract.harness import Harness

from .brokers import Brokers


def nowhere() -> Harness:
    raise Unavailable("it is gone")


def test_urls_come_before_containers() -> None:
    brokers = Brokers({"MESSAGING_TEST_KAFKA": "kafka://one:1 kafka://two:2", "MESSAGING_REQUIRE": "1"})
    assert [c.name for c in brokers.choose("kafka", ("kafka:4.2",))] == ["kafka://one:1", "kafka://two:2"]
    assert [c.name for c in brokers.choose("rabbitmq")] == ["rabbitmq:3.10", "rabbitmq:4"]
    assert [c.name for c in brokers.choose("rabbitmq", ("rabbitmq:4",))] == ["rabbitmq:4"]


def test_moto_stands_in_for_containers_only_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    containers = ["sqs:elasticmq", "sqs:ministack"]
    assert [c.name for c in Brokers({}).choose("sqs")] == [*containers, "sqs:moto-process"]
    assert [c.name for c in Brokers({"MESSAGING_REQUIRE": "1"}).choose("sqs")] == containers


def test_a_missing_broker_is_a_skip_and_where_required_a_failure() -> None:
    missing = Candidate("gone", nowhere)
    with pytest.raises(pytest.skip.Exception, match="not run: gone: it is gone"):
        Brokers({}).open(missing)
    with pytest.raises(pytest.fail.Exception, match="gone is required and not there: it is gone"):
        Brokers({"MESSAGING_REQUIRE": "1"}).open(missing)


def test_a_broker_is_opened_once_and_closed_at_the_end() -> None:
    closed = []
    harness = memory_harness()
    harness.closing.append(lambda: closed.append(True))
    opened = iter([harness])
    candidate = Candidate("memory", lambda: next(opened))
    brokers = Brokers({})
    assert brokers.open(candidate) is brokers.open(candidate) is harness
    brokers.close()
    brokers.close()
    assert closed == [True]
