"""LagThrottle and PressureGate on a broker whose answers the test decides on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from messaging import (
    Broker,
    BrokerUnavailable,
    Closed,
    ConfigurationError,
    DestinationNotFound,
    LagThrottle,
    PressureGate,
    ProducerHeld,
    Wait,
)
from messaging.watch import Watch

Eventually = Callable[..., None]


def throttle_on(broker: Broker, **options: Any) -> LagThrottle:
    return LagThrottle(broker, "jobs", **{"high": 3, "low": 1, "period": 0.005, **options})


@pytest.fixture
def trouble(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What `depth` raises, while there is something in it."""
    errors: list[Exception] = []
    honest = broker.depth

    def depth(*arguments: Any) -> int:
        if errors:
            raise errors[0]
        return honest(*arguments)

    monkeypatch.setattr(broker, "depth", depth)
    return errors


def test_a_timeout_that_no_clock_holds(broker: Broker, eventually: Eventually) -> None:
    with throttle_on(broker, timeout=math.inf) as throttle, broker.subscribe("jobs") as consumer:
        broker.publish_many("jobs", [1, 2, 3])
        eventually(lambda: throttle.lag == 3)
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(throttle.publish, "jobs", 4), pool.submit(throttle.wait, 1e300)]
            eventually(lambda: throttle.waits.get("lag") == 1)
            consumer.ack(consumer.receive(3))
            for each in waiting:
                each.result(10)


def test_it_holds_between_the_marks_only_on_the_way_down(
    broker: Broker, eventually: Eventually, no_threads_left: None
) -> None:
    told: list[Wait] = []
    with throttle_on(broker, on_wait=told.append) as throttle, broker.subscribe("jobs") as consumer:
        throttle.publish_many("jobs", [1, 2])
        eventually(lambda: throttle.lag == 2)
        assert not throttle.held
        throttle.publish_nowait("jobs", 3).result(10)
        eventually(lambda: throttle.held)
        with pytest.raises(ProducerHeld, match=r"lag is 3.*down to 1"):
            throttle.publish("jobs", 4, timeout=0.01)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(throttle.publish, "jobs", 4)
            (one, *_) = consumer.receive(1)
            one.ack()
            eventually(lambda: throttle.lag == 2)
            assert throttle.held
            assert not waiting.done()
            for delivery in consumer.receive(2):
                delivery.ack()
            waiting.result(10)
    assert throttle.waits["lag"] == len([wait for wait in told if wait.ended]) >= 2
    assert throttle.waited_seconds["lag"] > 0


def test_a_lag_that_cannot_be_learned_holds(
    broker: Broker, trouble: list[Exception], eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    trouble.append(BrokerUnavailable("no route"))
    with caplog.at_level(logging.WARNING), throttle_on(broker) as throttle:
        with pytest.raises(ProducerHeld, match="cannot be learned: no route") as raised:
            throttle.wait(0.1)
        assert raised.value.retryable
        assert isinstance(raised.value.__cause__, BrokerUnavailable)
        assert throttle.lag is None
        trouble.clear()
        throttle.wait(10)
        assert not throttle.held
    assert len([record for record in caplog.records if "no route" in record.getMessage()]) == 1


def test_what_does_not_heal_is_raised_at_once(broker: Broker, trouble: list[Exception]) -> None:
    trouble.append(DestinationNotFound("it was deleted"))
    with throttle_on(broker) as throttle, pytest.raises(DestinationNotFound, match=r"jobs.*it was deleted"):
        throttle.publish("jobs", 1, timeout=60)


def test_closing_lets_nobody_through(broker: Broker, eventually: Eventually) -> None:
    broker.publish_many("jobs", [1, 2, 3])
    throttle = throttle_on(broker)
    eventually(lambda: throttle.lag == 3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(throttle.publish, "jobs", 4)
        eventually(lambda: throttle.waits.get("lag") == 1)
        throttle.close()
        with pytest.raises(Closed):
            waiting.result(10)
    throttle.close()
    with pytest.raises(Closed):
        throttle.wait()
    assert broker.depth("jobs") == 3


def test_a_broker_that_is_closed_ends_the_waiting(broker: Broker, eventually: Eventually) -> None:
    with throttle_on(broker) as throttle:
        throttle.wait(10)
        broker.close()
        eventually(lambda: throttle.held)
        with pytest.raises(Closed):
            throttle.wait(60)


def test_a_producer_of_the_programs_own_publishes(broker: Broker) -> None:
    with throttle_on(broker, producer=broker.producer()) as throttle:
        throttle.publish("jobs", 1)
    assert broker.depth("jobs") == 1


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_positive(broker: Broker, timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        throttle_on(broker, timeout=timeout)


def test_a_gate_leaves_a_consumer_paused_that_the_program_has_paused(broker: Broker, eventually: Eventually) -> None:
    asked: list[float] = []

    def pressure() -> float:
        asked.append(0.0)
        return 10.0 if len(asked) < 5 else 0.0

    with broker.subscribe("jobs") as consumer:
        consumer.pause()
        with PressureGate(consumer, pressure, high=5, low=1, period=0.001) as gate:
            eventually(lambda: len(asked) > 10)
            assert not gate.paused
        assert consumer.paused
        assert gate.waits == {"pressure": 1}


def test_a_pressure_that_raises_pauses_until_it_is_known_again(
    broker: Broker, eventually: Eventually, caplog: pytest.LogCaptureFixture, no_threads_left: None
) -> None:
    broken = [True]

    def pressure() -> float:
        if broken:
            raise ZeroDivisionError("no idea")
        return 0.0

    with broker.subscribe("jobs") as consumer, caplog.at_level(logging.WARNING):
        with PressureGate(consumer, pressure, high=5, low=1, period=0.001) as gate:
            eventually(lambda: consumer.paused)
            broken.clear()
            eventually(lambda: not consumer.paused)
        assert gate.waits == {"pressure": 1}
        assert gate.waited_seconds["pressure"] > 0
    assert len([record for record in caplog.records if "no idea" in record.getMessage()]) == 1


def test_a_gate_ends_with_its_consumer(broker: Broker, no_threads_left: None) -> None:
    consumer = broker.subscribe("jobs")
    with PressureGate(consumer, lambda: 10.0, high=5, low=1, period=0.001):
        consumer.close()


def test_a_gate_needs_something_to_ask(broker: Broker) -> None:
    with broker.subscribe("jobs") as consumer, pytest.raises(ConfigurationError, match="pressure"):
        PressureGate(consumer, None, high=5, low=1)  # type: ignore[arg-type]


def test_a_turn_that_fails_is_tried_again(eventually: Eventually, caplog: pytest.LogCaptureFixture) -> None:
    turns: list[bool] = []

    def turned(above: bool) -> None:
        turns.append(above)
        if len(turns) == 1:
            raise BrokerUnavailable("just now")

    watch = Watch("test", lambda: 7.0, 5, 1, 0.001, turned)
    try:
        eventually(lambda: turns == [True, True])
    finally:
        watch.close()
    assert "tried again" in caplog.text
