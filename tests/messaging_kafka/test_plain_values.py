"""`publish_many` with plain values, which this adapter sends without making a Message of each."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from messaging import Broker, Message
from messaging.errors import BatchPublishFailed

from .cluster import one_partition, take

Connect = Callable[..., Broker]


def test_they_arrive_as_values_published_one_by_one_do(connect: Connect, name: str) -> None:
    broker = connect(one_partition(name))
    values = [b"bytes", "text", {"n": 1}, None]
    before = time.time()
    with broker.subscribe(name, "g") as consumer:
        one_by_one = [broker.publish(name, value) for value in values]
        many = broker.publish_many(name, values)
        first, second = take(consumer, len(values)), take(consumer, len(values))
    assert [d.id for d in first] == one_by_one
    assert [d.id for d in second] == many
    for one, other in zip(first, second, strict=True):
        assert (one.body, one.content_type, one.value) == (other.body, other.content_type, other.value)
        assert (other.key, other.type, other.headers, other.expires_at) == (None, "", {}, None)
        assert before - 0.001 <= other.timestamp <= time.time()


def test_beside_messages_they_keep_their_order(connect: Connect, name: str) -> None:
    broker = connect(one_partition(name))
    items = [b"0", Message(b"1", key="k", type="t"), b"2"]
    broker.publish_many(name, [b"so that the topic is known"])
    with broker.subscribe(name, "g") as consumer:
        ids = broker.publish_many(name, items)
        arrived = take(consumer, 4)[1:]
    assert [(d.id, d.body) for d in arrived] == list(zip(ids, [b"0", b"1", b"2"], strict=True))


def test_each_that_fails_is_told(connect: Connect, name: str) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b"so that the topic is known"])
    with connect() as other:
        other.delete(one_partition(name))
    producer = broker.producer(timeout=5.0)
    with pytest.raises(BatchPublishFailed) as failed:
        producer.publish_many(name, [b"1", b"2", b"3"])
    assert set(failed.value.failures) == {0, 1, 2}
