"""Who produces faster than the broker takes, or than others consume, waits, says so, and loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from messaging import (
    ConfigurationError,
    LagThrottle,
    MessagingError,
    Pressure,
    PressureGate,
    ProducerHeld,
    Queue,
    TopologyError,
    Wait,
)
from messaging.producer import Producer
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.conditions import Congestion
from messaging_contract.ledger import Ledger


def _told(told: list[Wait], reason: str) -> tuple[int, list[float]]:
    """How many waits for that reason began, and the seconds of those that ended; asserts that they take turns."""
    ours = [wait for wait in told if wait.reason == reason]
    assert [wait.ended for wait in ours] == [bool(number % 2) for number in range(len(ours))], told
    return sum(not wait.ended for wait in ours), [wait.seconds for wait in ours if wait.seconds is not None]


def _all_told(bench: Bench, producer: Producer, told: list[Wait], reason: str) -> None:
    """Every wait for that reason has ended, and the counters agree with what was told."""
    bench.eventually(lambda: reason not in producer.waiting, f"{reason} to end")
    bench.eventually(lambda: told[-1].ended, "the end of the wait to be told")
    began, seconds = _told(told, reason)
    assert began == len(seconds) == producer.waits[reason] >= 1
    assert producer.waited_seconds[reason] == pytest.approx(sum(seconds))
    assert min(seconds) >= 0


@clause(
    "backpressure.in-flight",
    "A publish that waits because max_in_flight messages are not confirmed is counted and told, as it begins to wait "
    "and when it goes on; one that need not wait says nothing.",
    failures=[4],
    on=QUEUE,
    controls="link",
    deadline=150,
)
def test_in_flight(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker, told = bench.adopt(link.connect(topology=source.destination)), list[Wait]()
    producer = broker.producer(max_in_flight=2, timeout=60, on_wait=told.append)
    ledger.publish_one(producer, source.destination, ledger.message())
    assert (producer.waits, producer.waited_seconds, told) == ({}, {}, [])
    link.blackhole()
    messages = ledger.messages(3)
    futures = [producer.publish_nowait(source.destination, message) for message in messages[:2]]
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(producer.publish, source.destination, messages[2])
        try:
            bench.eventually(lambda: bool(told), "the wait to be told")
            assert (told[0].reason, told[0].ended) == ("in-flight", False)
            assert producer.waiting == {"in-flight"}
            assert not last.done()
        finally:
            link.resume()
        ledger.confirm(last.result(90))
    ledger.confirm(future.result(90) for future in futures)
    _all_told(bench, producer, told, "in-flight")
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(duplicates=True)


def _publish_into(
    bench: Bench, congestion: Congestion, ledger: Ledger, on_wait: Callable[[Wait], Any], waiting: Callable[[], bool]
) -> Producer:
    """Publishes what has to wait, ends that once `waiting()`, and takes all that was published."""
    queue = Queue(bench.name())
    broker = bench.adopt(congestion.connect(topology=queue))
    producer = broker.producer(timeout=60, on_wait=on_wait)
    ledger.publish_one(producer, queue, ledger.message())
    assert not producer.waits
    messages = ledger.messages(congestion.messages)
    congestion.begin()

    def publish() -> list[Future[str]]:
        return [producer.publish_nowait(queue, message) for message in messages]

    with ThreadPoolExecutor(1) as pool:  # a full buffer blocks who publishes
        publishing = pool.submit(publish)
        try:
            bench.eventually(waiting, f"{congestion.reason!r} to be told")
            bench.eventually(lambda: producer.waiting == {congestion.reason}, "the producer to say why it waits")
        finally:
            congestion.end()
        consumer = bench.consume(queue, broker=broker)
        bench.take(consumer, ledger, len(messages) + 1, ack=True, timeout=2 * bench.patience)
        ledger.confirm(future.result(60) for future in publishing.result(60))
    consumer.flush()
    ledger.check(duplicates=True)
    return producer


@clause(
    "backpressure.says-why",
    "A publish that has to wait for the broker or for the client's buffer is counted and told with its reason, in the "
    "same words on every broker, as it begins and when it ends; nothing is lost.",
    failures=[4, 13],
    on=QUEUE,
    controls="congested",
    deadline=180,
)
def test_says_why(bench: Bench) -> None:
    congestion, ledger, told = bench.congestion(), bench.ledger(), list[Wait]()
    producer = _publish_into(bench, congestion, ledger, told.append, lambda: bool(told))
    assert {wait.reason for wait in told} == {congestion.reason}
    assert all(wait.detail for wait in told)
    _all_told(bench, producer, told, congestion.reason)


@clause(
    "backpressure.callback-raises",
    "An on_wait that raises is logged; what waits goes on, and nothing is lost.",
    on=QUEUE,
    controls="congested",
    deadline=180,
)
def test_callback_raises(bench: Bench) -> None:
    called: list[Wait] = []

    def fails(wait: Wait) -> None:
        called.append(wait)
        raise MessagingError("the program's own mistake")

    congestion = bench.congestion()
    producer = _publish_into(bench, congestion, bench.ledger(), fails, lambda: bool(called))
    _all_told(bench, producer, called, congestion.reason)


@clause(
    "backpressure.lag-throttle",
    "A throttle holds producers from when a subscription has its high mark of messages waiting until it is down to the "
    "low mark; held to the deadline, they are told, and nothing is sent.",
    failures=[4],
    deadline=180,
)
def test_lag_throttle(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    group = source.group
    told: list[Wait] = []
    with LagThrottle(
        bench.broker, source.destination, group, high=10, low=3, period=0.1, on_wait=told.append
    ) as throttle:
        ledger.publish(throttle, source.destination, ledger.messages(6))
        bench.eventually(lambda: throttle.lag == 6, lambda: f"a lag of 6, not {throttle.lag}")
        assert not throttle.held, "it held below the high mark"
        ledger.publish(throttle, source.destination, ledger.messages(6))
        bench.eventually(lambda: throttle.held, lambda: f"it to hold at a lag of {throttle.lag}")
        refused = ledger.message()
        with pytest.raises(ProducerHeld, match=source.destination.name):
            throttle.publish(source.destination, refused, timeout=0.3)
        ledger.refused.add(refused.id)
        with bench.consume(source, prefetch=1) as consumer:
            bench.take(consumer, ledger, 3, ack=True)
            consumer.flush()
        bench.eventually(
            lambda: throttle.lag is not None and 3 < throttle.lag < 10,
            lambda: f"a lag between the marks, not {throttle.lag}",
        )
        assert throttle.held, "it let go above the low mark"
        with ThreadPoolExecutor(1) as pool:
            message = ledger.message()
            held = pool.submit(ledger.publish_one, throttle, source.destination, message, timeout=60)
            bench.eventually(lambda: throttle.waits["lag"] >= 2, "the publish to be held")
            consumer = bench.consume(source)
            bench.take(consumer, ledger, 9, ack=True)
            consumer.flush()
            held.result(90)
        bench.take(consumer, ledger, ack=True)
    began, seconds = _told(told, "lag")
    assert began == len(seconds) == throttle.waits["lag"]
    ledger.check()


@clause(
    "backpressure.lag-unknown",
    "A throttle whose broker cannot be reached holds, says why at the deadline, and lets go once the lag is known.",
    on=QUEUE,
    controls="link",
    deadline=180,
)
def test_lag_unknown(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination, connect_timeout=3.0))
    with LagThrottle(broker, source.destination, high=10, low=3, period=0.1) as throttle:
        ledger.publish_one(throttle, source.destination, ledger.message(), timeout=60)
        link.cut()
        bench.eventually(lambda: throttle.held, "it to hold")
        with pytest.raises(ProducerHeld, match="cannot be learned"):
            throttle.wait(0.3)
        link.resume()
        throttle.wait(2 * bench.patience)
        ledger.publish_one(throttle, source.destination, ledger.message(), timeout=60)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(duplicates=True)


@clause(
    "backpressure.gate",
    "A consumer whose downstream is under pressure is paused from the high mark until the low mark; what it holds "
    "stays its own past its lease, and may be settled.",
    anchors=[30],
    deadline=180,
)
def test_gate(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    lease = bench.seconds(2.0) if bench.able.lease else None
    consumer = bench.consume(source, prefetch=4, lease=lease)
    pressure, told = [0.0], list[Wait]()
    with PressureGate(consumer, lambda: pressure[0], high=10, low=2, period=0.02, on_wait=told.append) as gate:
        ledger.publish(bench.broker, source.destination, ledger.messages(2))
        held = bench.take(consumer, ledger, 2)
        pressure[0] = 10.0
        bench.eventually(lambda: gate.paused, "the gate to pause")
        ledger.publish(bench.broker, source.destination, ledger.messages(4))
        pressure[0] = 5.0  # between the marks
        bench.quiet(consumer, ledger, max(bench.harness.quiet, 1.5 * (lease or 0.0)))
        assert gate.paused, "it went on above the low mark"
        consumer.ack(held)
        ledger.settle(held)
        pressure[0] = 2.0
        bench.take(consumer, ledger, ack=True)
        consumer.flush()
        pressure[0] = float("nan")
        bench.eventually(lambda: gate.paused, "no measurement to count as pressure")
    assert not consumer.paused, "a gate that is closed has left its consumer paused"
    assert _told(told, "pressure")[0] == gate.waits["pressure"] == 2
    bench.quiet(consumer, ledger)
    ledger.check()


@clause(
    "backpressure.two-pauses",
    "A consumer that both its program and a gate have paused goes on when the last of them lets it.",
)
def test_two_pauses(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer, pressure = bench.consume(source), [10.0]
    with PressureGate(consumer, lambda: pressure[0], high=10, low=2, period=0.02) as gate:
        bench.eventually(lambda: gate.paused, "the gate to pause")
        consumer.pause()
        ledger.publish(bench.broker, source.destination, ledger.messages(2))
        pressure[0] = 0.0
        bench.eventually(lambda: not gate.paused, "the gate to let go")
        bench.quiet(consumer, ledger)
        pressure[0] = 10.0
        bench.eventually(lambda: gate.paused, "the gate to pause what is paused")
        consumer.resume()
        bench.quiet(consumer, ledger)
        pressure[0] = 0.0
        bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "backpressure.bad-input",
    "Marks that are the wrong way round, negative or no numbers, a callback that is none, and a subscription that is "
    "not declared are refused before anything is watched.",
)
def test_bad_input(bench: Bench) -> None:
    source, broker = bench.source(), bench.broker
    group = source.group
    consumer = bench.consume(source)
    wrong: list[dict[str, Any]] = [
        {"high": 5, "low": 5},
        {"high": 2, "low": 5},
        {"high": 5, "low": -1},
        {"high": float("inf"), "low": 1},
        {"high": float("nan"), "low": 1},
        {"high": "5", "low": 1},
        {"high": 5, "low": 1, "period": 0},
        {"high": 5, "low": 1, "on_wait": "log"},
    ]
    for options in wrong:
        with pytest.raises(ConfigurationError):
            LagThrottle(broker, source.destination, group, **options)
        with pytest.raises(ConfigurationError):
            Pressure(lambda: 0.0, **options)
        with pytest.raises(ConfigurationError):
            PressureGate(consumer, lambda: 0.0, **options)
    with pytest.raises(ConfigurationError, match="on_wait"):
        broker.producer(on_wait="log")
    with pytest.raises(TopologyError):
        LagThrottle(broker, source.destination, "nobody", high=5, low=1)
    with pytest.raises(TopologyError):
        LagThrottle(broker, bench.name(), high=5, low=1)
    assert not consumer.paused
