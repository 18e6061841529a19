"""What a consumer that loses its partitions and gets them back remembers of its retries. No broker is needed."""

from __future__ import annotations

from typing import cast

from messaging import Queue
from messaging.buffer import DeliveryBuffer
from messaging.delivery import Settler
from messaging.topology import Source
from messaging_kafka.interrupted import Interrupted
from messaging_kafka.records import GroupDelivery
from messaging_kafka.tracker import OffsetTracker

SOURCE = Source(Queue("q"))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def read(offset: int, tracker: OffsetTracker, attempt: int = 1) -> GroupDelivery:
    return GroupDelivery(cast(Settler, None), SOURCE, None, tracker, offset, attempt)


def reassigned(offsets: list[int], partition: int = 0) -> OffsetTracker:
    tracker = OffsetTracker(partition)
    tracker.add(offsets)
    return tracker


def test_a_nacked_message_goes_on_waiting_as_the_attempt_it_was_to_be() -> None:
    clock = Clock()
    buffer = DeliveryBuffer(clock)
    interrupted = Interrupted(buffer, clock)
    before = reassigned([4, 5])
    buffer.put_later(read(5, before, 3), 10.0)
    interrupted.remember([0])
    before.drop()
    buffer.remove(lambda _delivery: True)
    clock.now += 4
    tracker = reassigned([4, 5])
    assert 0 in interrupted
    fresh = interrupted.go_on(tracker, [read(4, tracker), read(5, tracker)])
    assert [(d.offset, d.attempt) for d in cast(list[GroupDelivery], fresh)] == [(4, 1)]
    ((left, waiting),) = buffer.waiting()
    assert (left, cast(GroupDelivery, waiting).offset, waiting.attempt) == (6.0, 5, 3)
    assert 0 not in interrupted


def test_one_that_became_due_meanwhile_comes_at_once_and_keeps_its_attempt() -> None:
    clock = Clock()
    buffer = DeliveryBuffer(clock)
    interrupted = Interrupted(buffer, clock)
    buffer.put_later(read(5, reassigned([5]), 2), 1.0)
    interrupted.remember([0])
    clock.now += 2
    tracker = reassigned([5])
    (fresh,) = interrupted.go_on(tracker, [read(5, tracker)])
    assert fresh.attempt == 2


def test_it_is_kept_until_it_was_read_and_other_partitions_are_not_touched() -> None:
    clock = Clock()
    buffer = DeliveryBuffer(clock)
    interrupted = Interrupted(buffer, clock)
    buffer.put_later(read(9, reassigned([9]), 2), 50.0)
    buffer.put_later(read(3, reassigned([3], 1), 2), 50.0)
    interrupted.remember([0])
    assert 1 not in interrupted
    first = reassigned([4])
    assert len(interrupted.go_on(first, [read(4, first)])) == 1
    assert 0 in interrupted
    then = reassigned([10])  # somebody else settled it
    assert len(interrupted.go_on(then, [read(10, then)])) == 1
    assert 0 not in interrupted


def test_a_replay_forgets_it() -> None:
    buffer = DeliveryBuffer(Clock())
    interrupted = Interrupted(buffer, Clock())
    buffer.put_later(read(9, reassigned([9]), 2), 50.0)
    interrupted.remember([0])
    interrupted.forget(0)
    assert 0 not in interrupted
