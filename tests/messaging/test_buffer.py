from threading import Thread
from typing import Any

import pytest

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery, PlainDelivery
from messaging.errors import SettleFailed
from messaging.topology import Queue, Source


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def deliveries(count: int) -> list[Any]:
    settler: Any = None
    return [PlainDelivery(settler, Source(Queue("jobs")), n) for n in range(count)]


def test_takes_what_is_there_at_once_and_in_order() -> None:
    buffer, given = DeliveryBuffer(), deliveries(5)
    buffer.put(given)
    assert buffer.take(3, 60) == given[:3]
    assert buffer.take(9, 60) == given[3:]
    assert buffer.take(9, 0) == []
    assert buffer.take(9, -1) == []


def test_later_ones_wait_for_the_clock() -> None:
    clock = Hand()
    buffer, (one, two, three) = DeliveryBuffer(clock), deliveries(3)
    buffer.put_later(one, 5)
    buffer.put_later(two, 1)
    buffer.put_later(three, 1)
    assert len(buffer) == 3
    assert buffer.take(9, 0) == []
    clock.now = 1
    assert buffer.take(9, 0) == [two, three]
    clock.now = 5
    assert buffer.take(9, 0) == [one]


def test_waiting_ends_when_something_comes() -> None:
    for _ in range(30):
        clock = Hand()
        buffer, (one,) = DeliveryBuffer(clock), deliveries(1)
        buffer.put_later(one, 1000)
        taken: list[Delivery] = []
        thread = Thread(target=lambda b=buffer, t=taken: t.extend(b.take(1, 60)))
        thread.start()
        clock.now = 1000
        buffer.wake()
        thread.join(10)
        assert taken == [one]


def test_an_error_is_raised_once() -> None:
    buffer, (one,) = DeliveryBuffer(), deliveries(1)
    buffer.put([one])
    buffer.fail(SettleFailed("no"))
    with pytest.raises(SettleFailed):
        buffer.take(1, 0)
    assert buffer.take(1, 0) == [one]


def test_close_returns_the_rest_and_ends_take() -> None:
    for _ in range(30):
        buffer, (one, two, three) = DeliveryBuffer(), deliveries(3)
        results: list[list[Delivery]] = []
        thread = Thread(target=lambda b=buffer, r=results: r.append(b.take(1, 60)))
        thread.start()
        left = buffer.close()
        thread.join(10)
        assert not thread.is_alive()
        assert (results, left) == ([[]], [])
        buffer.put([one])
        buffer.put_later(two, 0)
        assert buffer.take(1, 60) == []
        assert buffer.close() == []
    buffer = DeliveryBuffer()
    buffer.put([one, two])
    buffer.put_later(three, 5)
    assert buffer.close() == [one, two, three]


def test_remove_asks_once() -> None:
    buffer, given = DeliveryBuffer(), deliveries(6)
    buffer.put(given[:3])
    for delivery in given[3:]:
        buffer.put_later(delivery, 0)
    asked: list[Delivery] = []

    def unwanted(delivery: Delivery) -> bool:
        asked.append(delivery)
        return delivery.native % 2 == 0

    assert buffer.remove(unwanted) == [given[0], given[2], given[4]]
    assert asked == given
    assert buffer.take(9, 0) == [given[1], given[3], given[5]]


def test_several_takers_share_without_loss() -> None:
    for _ in range(20):
        buffer, given = DeliveryBuffer(), deliveries(200)
        taken: list[Delivery] = []

        def take(buffer: DeliveryBuffer = buffer, taken: list[Delivery] = taken) -> None:
            while got := buffer.take(3, 5):
                taken.extend(got)

        threads = [Thread(target=take) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(0, 200, 10):
            buffer.put(given[n : n + 10])
        while len(taken) < 200:
            assert any(thread.is_alive() for thread in threads)
        buffer.close()
        for thread in threads:
            thread.join(10)
        assert sorted(d.native for d in taken) == list(range(200))
