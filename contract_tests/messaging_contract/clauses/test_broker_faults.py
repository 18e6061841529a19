"""Brokers that run short of memory, or are killed where they stand: publishers wait, and nothing confirmed is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from messaging import BrokerUnavailable, Message, ProducerFull, PublishTimeout
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause

ENDS = 10.0
"""Seconds beyond its own deadline in which a call has to have ended on a busy machine."""

SETTLED = 4.0
"""Seconds after which a broker has written down what it knows of a new queue: RabbitMQ needs about two."""


@contextmanager
def _short_of_memory(bench: Bench) -> Iterator[None]:
    raise_alarm, clear = bench.harness.alarm, bench.harness.clear_alarm
    assert raise_alarm is not None
    assert clear is not None
    raise_alarm()
    try:
        yield
    finally:
        clear()


@clause(
    "faults.memory-alarm",
    "While the broker is short of memory, publishes wait to their deadline and consumers go on; then all goes on.",
    anchors=[9, 19],
    failures=[13],
    controls=["alarm", "clear_alarm"],
    deadline=180,
)
def test_memory_alarm(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker)
    ledger.publish(broker, source.destination, ledger.messages(5))
    with broker.producer(timeout=60) as producer:
        with _short_of_memory(bench):
            started = time.monotonic()
            with pytest.raises((PublishTimeout, BrokerUnavailable)):
                ledger.publish_one(broker, source.destination, ledger.message(), timeout=2)
            assert 1.9 <= time.monotonic() - started < 2 + ENDS
            waiting = ledger.messages(20)
            futures = [producer.publish_nowait(source.destination, message) for message in waiting]
            bench.take(consumer, ledger, ack=True)
            consumer.flush()
            assert not any(future.done() for future in futures)
        for message, future in zip(waiting, futures, strict=True):
            future.result(60)
            ledger.confirm(message.id)
    ledger.publish(broker, source.destination, ledger.messages(3))
    bench.take(consumer, ledger, ack=True)
    ledger.check(recovered=True, duplicates=True)


@clause(
    "faults.memory-alarm-bounds",
    "A producer that a broker short of memory blocks is bounded: it is full, and its close ends.",
    anchors=[11],
    failures=[4, 13],
    on=QUEUE,
    controls=["alarm", "clear_alarm"],
    deadline=180,
)
def test_memory_alarm_bounds(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    producer = broker.producer(max_in_flight=3, on_full="raise", timeout=60)
    with _short_of_memory(bench):
        held = ledger.messages(3)
        futures = [producer.publish_nowait(source.destination, message) for message in held]
        extra: Message = ledger.message()
        with pytest.raises(ProducerFull):
            producer.publish_nowait(source.destination, extra)
        ledger.refused.add(extra.id)
        started = time.monotonic()
        producer.close(2)
        broker.close()
        assert time.monotonic() - started < 2 + 2 * ENDS
        errors = [future.exception(ENDS) for future in futures]
        assert all(isinstance(error, PublishTimeout | BrokerUnavailable) for error in errors)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(recovered=True)


@clause(
    "faults.killed-broker",
    "A broker that is killed where it stands and starts again has every message that it confirmed.",
    anchors=[3, 140],
    failures=[29],
    controls="kill",
    deadline=240,
)
def test_killed_broker(bench: Bench) -> None:
    kill = bench.harness.kill
    assert kill is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    until = time.monotonic() + SETTLED
    while time.monotonic() < until:
        ledger.publish(broker, source.destination, ledger.messages(5))
        time.sleep(0.02)  # a fast broker would get more than can be received in time
    kill()
    with suppress(PublishTimeout, BrokerUnavailable):
        ledger.publish_one(broker, source.destination, ledger.message())
    bench.take(bench.consume(source, broker=broker), ledger, ack=True, timeout=2 * bench.patience)
    ledger.check(duplicates=True, recovered=True)
