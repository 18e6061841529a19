from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

import messaging
from messaging import (
    Closed,
    ConfigurationError,
    Difference,
    Finding,
    Part,
    Queue,
    Subscription,
    Topic,
    UnsupportedCapability,
)
from messaging.broker import Broker
from messaging.capabilities import Capabilities
from messaging.driver import Driver
from messaging.plan import compare, missing
from messaging_memory import MemoryDriver, MemoryServer

PART = Part("queue", "q", {"size": 3, "kind": "fast"}, "why not")


def test_comparing() -> None:
    assert compare(PART, {"size": 3, "kind": "fast", "more": 1}, "").state == "there"
    finding = compare(PART, {"size": 3}, "do this")
    assert (finding.state, finding.way_out) == ("different", "do this")
    assert [str(difference) for difference in finding.differences] == ["kind is not set and should be fast"]
    assert str(Difference("a", 1, None)) == "a is 1 and should be not set"
    assert str(PART) == "queue 'q'"


def test_what_counts_as_drift() -> None:
    later = Part("queue", "q", on_demand=True)
    assert missing(PART).drifted
    assert not missing(later).drifted
    assert Finding(later, "different").drifted
    assert not Finding(PART, "unknown").drifted
    assert not Finding(PART, "there").drifted


def test_values_can_be_keys() -> None:
    assert {PART: 1}[Part("queue", "q", {"size": 3, "kind": "fast"}, "why not")] == 1
    assert Part("queue", "q", {"size": 4}, "why not") != PART


def test_what_was_declared_is_what_is_planned_without_an_argument() -> None:
    with messaging.connect("memory://", topology=Queue("a")) as broker:
        assert [part.name for part in broker.plan()] == ["a", "a--dlq"]
        assert {finding.state for finding in broker.inspect()} == {"there"}
        assert {finding.state for finding in broker.inspect(Queue("b"))} == {"missing"}
        assert broker.topology.get("b") is None
        assert broker.leftovers(delays=[1.0]) == []
    for call in (broker.plan, broker.inspect, lambda: broker.leftovers(delays=[1.0])):
        with pytest.raises(Closed):
            call()


def test_a_dead_letter_queue_that_is_declared_too_is_one_part() -> None:
    with messaging.connect("memory://") as broker:
        parts = broker.plan([Queue("a"), Queue("a--dlq", dead_letter=False)])
        assert [part.name for part in parts] == ["a", "a--dlq"]


@pytest.mark.parametrize("delay", [0, -1, math.nan, math.inf])
def test_delays_that_are_none(delay: float) -> None:
    with messaging.connect("memory://") as broker, pytest.raises(ConfigurationError, match="positive"):
        broker.plan(Queue("a"), delays=[delay])


def test_what_differs_in_memory() -> None:
    server = MemoryServer()
    with messaging.connect("memory://", server=server) as broker:
        broker.declare([Queue("q"), Topic("t", Subscription("g", "a.*"))])
        (queue,) = broker.inspect(Queue("q", ordered=True, dead_letter=False))
        assert [str(d) for d in queue.differences] == ["ordered is False and should be True"]
        told = {
            f.part.name: [str(d) for d in f.differences] for f in broker.inspect(Topic("t", Subscription("g", "b")))
        }
        assert told["t--g"] == ["pattern is a.* and should be b"]
    with messaging.connect("memory://", server=server) as other:
        (topic, *_) = other.inspect(Topic("q"))
        assert [str(d) for d in topic.differences] == ["kind is queue and should be topic"]
        (queue, *_) = other.inspect(Queue("t"))
        assert "delete it first" in queue.way_out


class OfAThirdParty(MemoryDriver):
    """An adapter from before there were plans."""

    plan, inspect, assume, export = Driver.plan, Driver.inspect, Driver.assume, Driver.export  # type: ignore[assignment]

    @classmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        return []


def test_an_adapter_without_plans_still_works() -> None:
    driver: Any = OfAThirdParty(MemoryDriver.Options())
    driver.open()
    with Broker(driver) as broker:
        broker.declare(Queue("q"))
        broker.publish("q", 1)
        for call in (broker.plan, broker.inspect, lambda: driver.assume(None), lambda: driver.export([], "x")):
            with pytest.raises(UnsupportedCapability, match="memory: this adapter"):
                call()
    assert Driver.export_formats == ()
