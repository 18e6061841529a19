"""Waits: who waits and for what, and what a producer tells of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

import messaging
from messaging import ConfigurationError, ProducerFull, Queue, Wait
from messaging.waits import UNTOLD, Waits
from messaging_memory import MemoryServer


def test_a_wait_begins_with_the_first_and_ends_with_the_last() -> None:
    told: list[Wait] = []
    waits = Waits(told.append)
    waits.begin("buffer", "full")
    waits.begin("buffer")
    waits.end("buffer")
    assert told == [Wait("buffer", None, "full")]
    assert waits.open == {"buffer"}
    assert waits.seconds["buffer"] >= 0
    waits.end("buffer")
    waits.end("buffer")  # once too often
    assert [(wait.ended, wait.detail) for wait in told] == [(False, "full"), (True, "full")]
    assert (waits.counts, waits.open) == ({"buffer": 1}, frozenset())
    assert waits.seconds["buffer"] == told[1].seconds


def test_reasons_are_counted_apart_and_close_ends_all() -> None:
    told: list[Wait] = []
    waits = Waits(told.append)
    waits.begin("buffer")
    with waits.during("in-flight"):
        pass
    waits.begin("blocked")
    waits.close()
    assert waits.counts == {"buffer": 1, "in-flight": 1, "blocked": 1}
    assert sorted(wait.reason for wait in told if wait.ended) == ["blocked", "buffer", "in-flight"]


def test_a_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails(wait: Wait) -> None:
        raise ValueError(f"for {wait.reason}")

    waits = Waits(fails)
    with caplog.at_level(logging.ERROR), waits.during("lag"):
        pass
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert waits.counts == {"lag": 1}


def test_a_callback_that_is_interrupted_is_called_again() -> None:
    told: list[Wait] = []

    def interrupted(wait: Wait) -> None:
        told.append(wait)
        if len(told) == 1:
            raise KeyboardInterrupt

    waits = Waits(interrupted)
    with pytest.raises(KeyboardInterrupt):
        waits.begin("lag")
    waits.end("lag")
    assert [wait.ended for wait in told] == [False, True]


def test_a_callback_that_takes_long_holds_up_nobody_and_is_told_in_order() -> None:
    told: list[Wait] = []
    entered, go_on = Event(), Event()

    def slow(wait: Wait) -> None:
        entered.set()
        go_on.wait(10)
        told.append(wait)

    waits = Waits(slow)
    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(waits.begin, "blocked")
        assert entered.wait(10)
        waits.end("blocked")  # returns at once: the other thread tells it
        assert told == []
        go_on.set()
        telling.result(10)
    assert [wait.ended for wait in told] == [False, True]


def test_a_callback_may_wait_itself() -> None:
    told: list[Wait] = []

    def nested(wait: Wait) -> None:
        told.append(wait)
        if wait.reason == "blocked" and not wait.ended:
            with waits.during("lag"):
                pass

    waits = Waits(nested)
    with waits.during("blocked"):
        pass
    assert [wait.reason for wait in told] == ["blocked", "lag", "lag", "blocked"]


def test_who_has_nobody_to_tell_keeps_nothing() -> None:
    with UNTOLD.during("buffer"):
        assert not UNTOLD.open
    assert not UNTOLD.counts


def test_both_bounds_of_a_producer_whose_queue_is_full(eventually: Callable[..., None], no_threads_left: None) -> None:
    told: list[Wait] = []
    server = MemoryServer(capacity=1)
    with messaging.connect("memory://", server=server, topology=Queue("jobs")) as broker:
        producer = broker.producer(max_in_flight=2, on_wait=told.append)
        futures = [producer.publish_nowait("jobs", number) for number in range(3)]
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(producer.publish, "jobs", 3)
            eventually(lambda: producer.waiting == {"blocked", "in-flight"})
            assert [wait.reason for wait in told] == ["blocked", "in-flight"]
            with broker.subscribe("jobs") as consumer:
                for number in range(4):
                    (delivery,) = consumer.receive(1, 10)
                    assert delivery.value == number
                    delivery.ack()
                    if number == 0:
                        # Else it may come when the queue was empty for a moment, and wait for a second time.
                        eventually(lambda: producer.waiting == {"blocked"})
                        eventually(lambda: len(producer._sender._waiting["jobs"]) == 2)  # type: ignore[attr-defined]
            last.result(10)
        assert [future.done() for future in futures] == [True] * 3
        eventually(lambda: producer.waiting == frozenset())
        assert producer.waits == {"blocked": 1, "in-flight": 1}


def test_a_producer_that_is_closed_waits_no_more() -> None:
    told: list[Wait] = []
    with messaging.connect("memory://", server=MemoryServer(capacity=1), topology=Queue("jobs")) as broker:
        producer = broker.producer(max_in_flight=1, on_full="raise", on_wait=told.append)
        producer.publish("jobs", 1)
        future = producer.publish_nowait("jobs", 2)
        with pytest.raises(ProducerFull):  # which is no wait
            producer.publish_nowait("jobs", 3)
        producer.close(0.0)
        assert future.exception(10) is not None
    assert [(wait.reason, wait.ended) for wait in told] == [("blocked", False), ("blocked", True)]


def test_a_callback_must_be_a_function() -> None:
    with messaging.connect("memory://") as broker, pytest.raises(ConfigurationError, match="on_wait"):
        broker.producer(on_wait="print")


def test_an_interrupt_while_waiting_leaves_no_place_taken() -> None:
    def interrupted(wait: Wait) -> None:
        if wait.reason == "in-flight" and not wait.ended:
            raise KeyboardInterrupt

    with messaging.connect("memory://", server=MemoryServer(capacity=1), topology=Queue("jobs")) as broker:
        producer = broker.producer(max_in_flight=1, on_wait=interrupted)
        producer.publish("jobs", 1)
        held = producer.publish_nowait("jobs", 2)
        with pytest.raises(KeyboardInterrupt):
            producer.publish_nowait("jobs", 3)
        assert producer.in_flight == 1
        assert producer.waiting == {"blocked"}
        broker.purge("jobs")
        held.result(10)
        producer.publish_nowait("jobs", 4)
        broker.purge("jobs")
        producer.flush(10)
        assert producer.in_flight == 0
