"""The worker's ways to end, and handlers that behave badly, on the memory broker."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import messaging
from messaging import Broker, ConfigurationError, Delivery, Pressure, RetryPolicy, Wait, Worker
from messaging.topology import Queue

Eventually = Callable[..., None]

ONCE = RetryPolicy(attempts=1)
TWICE = RetryPolicy(attempts=2, delays=(0.0,))


@pytest.fixture
def broker() -> Iterator[Broker]:
    with messaging.connect("memory://", topology=Queue("q")) as broker:
        yield broker


def dead_letters(broker: Broker) -> int:
    return broker.dead_letter_depth("q")


@pytest.mark.usefixtures("no_threads_left")
def test_repeated_sigterm_does_not_cut_the_drain_off(broker: Broker) -> None:
    worker, finished = Worker(broker), threading.Event()

    @worker.on("q")
    def handle(_delivery: Delivery) -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            worker._stop.wait(10)
        finished.set()

    before = signal.getsignal(signal.SIGTERM)
    broker.publish("q", 1)
    worker.run()
    assert finished.is_set()
    assert broker.depth("q") == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("wait", [True, False], ids=["draining", "at-once"])
def test_a_second_interrupt_does_not_wait_for_handlers(broker: Broker, wait: bool) -> None:
    worker, go_on, ended = Worker(broker, drain_timeout=60), threading.Event(), threading.Event()

    @worker.on("q")
    def handle(_delivery: Delivery) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        if wait:
            worker._stop.wait(10)
        while not worker._interrupted:  # from here on the main thread may still be handling the first
            time.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait(60)
        ended.set()

    broker.publish("q", 1)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    assert not ended.is_set()
    go_on.set()
    with broker.subscribe("q") as consumer:
        [delivery] = consumer.receive(1, 10)  # nothing was settled
        delivery.ack()


def test_a_sigterm_between_two_interrupts_changes_nothing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, go_on, seen = Worker(broker, drain_timeout=60), threading.Event(), list[int]()
    on_signal = worker._on_signal

    def note(number: int) -> None:
        on_signal(number)
        seen.append(number)

    monkeypatch.setattr(worker, "_on_signal", note)

    @worker.on("q")
    def handle(_delivery: Delivery) -> None:
        for count, number in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGINT), 1):
            os.kill(os.getpid(), number)
            while len(seen) < count:
                time.sleep(0)
        go_on.wait(60)

    broker.publish("q", 1)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    go_on.set()


def test_a_hurried_end_is_forgotten(broker: Broker) -> None:
    worker, started, handled = Worker(broker, drain_timeout=60), threading.Event(), []
    hurried, go_on = threading.Event(), threading.Event()

    @worker.on("q")
    def handle(delivery: Delivery) -> None:
        if not hurried.is_set():
            hurried.set()
            os.kill(os.getpid(), signal.SIGINT)
            while not worker._interrupted:
                time.sleep(0)
            os.kill(os.getpid(), signal.SIGINT)
            go_on.wait(60)
            return
        started.set()
        go_on.wait(60)
        handled.append(delivery)

    broker.publish("q", 1)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    worker.start()
    assert started.wait(10)

    def finish() -> None:
        while worker._pools:  # until it is being stopped
            time.sleep(0)
        go_on.set()

    threading.Thread(target=finish).start()
    assert worker.stop()
    assert len(handled) == 1


@pytest.mark.usefixtures("no_threads_left")
def test_an_interrupted_subscribe_leaves_nothing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, consumers = Worker(broker), []
    subscribe = broker.subscribe

    def interrupted(*args: Any, **options: Any) -> Any:
        if consumers:  # the second registration
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        consumers.append(subscribe(*args, **options))
        return consumers[-1]

    monkeypatch.setattr(broker, "subscribe", interrupted)
    worker.on("q")(lambda _delivery: None)
    worker.on("q")(lambda _delivery: None)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    with pytest.raises(messaging.Closed):
        consumers[0].receive(1, 0)


def test_a_request_before_run_stops_it_at_once(broker: Broker) -> None:
    worker = Worker(broker)
    worker.on("q")(lambda _delivery: None)
    worker.request_stop()
    worker.run()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_ends_a_registration_is_raised_by_run(broker: Broker, concurrency: int) -> None:
    worker = Worker(broker)
    worker.on("q", concurrency=concurrency)(lambda _delivery: broker.delete(Queue("q")))
    broker.publish("q", 1)
    with pytest.raises(messaging.DestinationNotFound):
        worker.run()


class Unspeakable(Exception):
    """Cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_error_that_cannot_be_told(broker: Broker, eventually: Eventually) -> None:
    worker = Worker(broker)

    @worker.on("q", retry=ONCE)
    def handle(_delivery: Delivery) -> None:
        raise Unspeakable

    with worker:
        broker.publish("q", 1)
        eventually(lambda: dead_letters(broker) == 1)


async def without_argument() -> None:
    """Not a handler."""


def plain_without_argument() -> None:
    """Not a handler."""


@pytest.mark.parametrize("handler", [without_argument, plain_without_argument])
def test_a_handler_that_cannot_be_called_fails_like_any_other(
    broker: Broker, eventually: Eventually, handler: Callable[[], object]
) -> None:
    worker = Worker(broker)
    worker.on("q", retry=ONCE)(handler)  # type: ignore[arg-type]
    with worker:
        broker.publish("q", 1)
        eventually(lambda: dead_letters(broker) == 1)


def test_a_coroutine_handler_that_cancels_its_own_task_is_told(broker: Broker) -> None:
    worker = Worker(broker)

    @worker.on("q", retry=TWICE)
    async def handle(_delivery: Delivery) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(10)

    broker.publish("q", 1)
    with pytest.raises(RuntimeError, match="cancelled the task it runs in"):
        worker.run()
    assert broker.depth("q") == 1


@pytest.mark.usefixtures("no_threads_left")
def test_what_ends_one_coroutine_handler_lets_the_others_finish(broker: Broker) -> None:
    worker, finished = Worker(broker), []
    both = asyncio.Barrier

    @worker.on("q", concurrency=2)
    async def handle(delivery: Delivery) -> None:
        nonlocal meeting
        meeting = meeting or both(2)
        await meeting.wait()
        if delivery.value == "exit":
            raise SystemExit(3)
        await asyncio.sleep(0.05)
        finished.append(delivery.value)

    meeting: asyncio.Barrier | None = None
    broker.publish_many("q", ["exit", "other"])
    with pytest.raises(SystemExit):
        worker.run()
    assert finished == ["other"]
    assert broker.depth("q") == 1


def test_generators_and_bad_concurrency_are_refused(broker: Broker) -> None:
    worker = Worker(broker)

    def yields(_delivery: Delivery) -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="yield"):
        worker.on("q")(yields)
    with pytest.raises(ConfigurationError, match="concurrency"):
        worker.on("q", concurrency=0)
    with pytest.raises(ConfigurationError, match="no handler"):
        worker.start()


def test_start_that_fails_leaves_nothing_running(broker: Broker) -> None:
    worker = Worker(broker)
    worker.on("q")(lambda _delivery: None)
    worker.on("q", prefetch=0)(lambda _delivery: None)
    before = threading.active_count()
    with pytest.raises(ConfigurationError, match="prefetch"):
        worker.start()
    assert threading.active_count() == before
    assert worker.stop(1)


def test_a_worker_pauses_under_pressure(broker: Broker, eventually: Eventually, no_threads_left: None) -> None:
    worker, handled, pressure, told = Worker(broker), list[int](), [10.0], list[Wait]()

    @worker.on("q", pressure=Pressure(lambda: pressure[0], high=5, low=1, period=0.001, on_wait=told.append))
    def handle(delivery: Delivery) -> None:
        handled.append(delivery.value)

    with worker:
        eventually(lambda: bool(told))
        broker.publish_many("q", [1, 2, 3])
        pressure[0] = 0.0
        eventually(lambda: len(handled) == 3)
        pressure[0] = 10.0
        eventually(lambda: len(told) == 3)
    assert [wait.ended for wait in told] == [False, True, False, True]
