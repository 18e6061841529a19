"""The deliveries of a Kafka consumer: structs that the collector does not see, so nothing may be left to it."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from confluent_kafka import Message as Record
from hypothesis import given
from hypothesis import strategies as st

from messaging import Queue
from messaging.topology import Source
from messaging_kafka.records import GroupDelivery, KafkaDelivery
from messaging_kafka.share_batch import Batch, ShareDelivery
from messaging_kafka.tracker import OffsetTracker

SETTLER: Any = None
JOBS = Source(Queue("jobs"))


def batch_of(count: int) -> tuple[Batch, list[ShareDelivery]]:
    batch = Batch()
    records = [Record(topic="jobs", partition=0, offset=offset, value=b"x", error=None) for offset in range(count)]
    deliveries = [ShareDelivery(SETTLER, JOBS, record, batch) for record in records]
    batch.begin(list(deliveries))
    return batch, deliveries


def of_group() -> KafkaDelivery:
    record = Record(topic="jobs", partition=0, offset=7, value=b"x", error=None)
    return GroupDelivery(SETTLER, JOBS, record, OffsetTracker(0), 7)


@pytest.mark.parametrize("delivery", [of_group(), batch_of(8)[1][7]], ids=["group", "share"])
def test_again_is_the_same_record_unsettled_one_attempt_on(delivery: KafkaDelivery) -> None:
    delivery._settled = True
    again = delivery.again()
    assert isinstance(again, type(delivery))
    assert (again.id, again.attempt, again.settled) == ("jobs-0-7", 2, False)
    assert (again.native, again.tracker, again.offset) == (delivery.native, delivery.tracker, delivery.offset)
    assert repr(again) == f"<Delivery jobs-0-7 of {JOBS}, attempt 2>"
    assert again != delivery
    assert len({again, delivery}) == 2


@given(st.lists(st.integers(1, 3), max_size=6), st.booleans())
def test_what_is_settled_in_order_is_taken_out_in_order(sizes: list[int], looked_up: bool) -> None:
    batch, deliveries = batch_of(20)
    settled = 0
    for size in sizes:
        assert batch.settle_next(deliveries[settled : settled + size])
        settled += size
        assert len(batch) == 20 - settled
    assert not batch.settle_next(deliveries[settled + 1 : settled + 3])
    if looked_up:
        assert list(batch.open.values()) == deliveries[settled:]
        assert len(batch) == 20 - settled
    assert batch.settle_next(deliveries[settled:]) is not looked_up


@pytest.mark.parametrize("in_order", [True, False])
def test_a_batch_lets_go_of_what_is_settled(in_order: bool) -> None:
    batch, deliveries = batch_of(3)
    held = sys.getrefcount(deliveries[0])
    if in_order:
        batch.settle_next(deliveries)
    else:
        for delivery in deliveries:
            del batch.open[delivery.place]
        del delivery
    left = sys.getrefcount(deliveries[0])
    assert left == held - 1
    assert not gc.is_tracked(deliveries[0])


def test_a_batch_that_ends_is_not_alive_and_lets_go_of_the_rest() -> None:
    batch, deliveries = batch_of(3)
    batch.settle_next(deliveries[:1])
    batch.end()
    assert not batch.alive
    assert not batch
