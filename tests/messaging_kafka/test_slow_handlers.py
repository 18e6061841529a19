"""A handler that takes longer than what the client or the broker allows between two calls: nobody else notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event

import pytest
from confluent_kafka.admin import ResourceType

from messaging import Broker, Queue

from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]


@pytest.mark.only("kafka:4.2")
def test_messages_held_for_longer_than_the_poll_interval_cost_no_membership(
    connect: Connect, cluster: Cluster, name: str
) -> None:
    # The classic protocol, whose client leaves the group when it is not polled. 6 s is the least: the interval may not
    # be below the session timeout, and no broker takes less for that.
    config = {"max.poll.interval.ms": "6000", "session.timeout.ms": "6000"}
    broker = connect(one_partition(name), group_protocol="classic", config=config)
    broker.publish_many(name, [b"%d" % n for n in range(1200)])  # more than is read ahead, so there is no room to poll
    with broker.subscribe(name, "g", prefetch=4) as consumer:
        held = take(consumer, 4)
        before = members(cluster, f"{name}--g")
        assert len(before) == 1
        until = time.monotonic() + 8
        while time.monotonic() < until:
            assert members(cluster, f"{name}--g") == before
            Event().wait(0.25)
        consumer.ack(held)
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 4}
        assert members(cluster, f"{name}--g") == before
        assert [(d.body, d.attempt) for d in take(consumer, 4)] == [(b"%d" % n, 1) for n in range(4, 8)]


def members(cluster: Cluster, group: str) -> list[str]:
    """The members that have a partition. One that leaves and comes back is another."""
    return [m.member_id for m in cluster.group(group).members if m.assignment.topic_partitions]


@pytest.mark.only("kafka:4.2")
def test_a_message_held_for_longer_than_its_lock_is_nobody_elses(
    shares: Connect, cluster: Cluster, name: str, eventually: Callable[..., None]
) -> None:
    one, two = shares(Queue(name)), shares(Queue(name))
    # The least that a broker takes, so this test takes 17 s.
    cluster.configure(f"{name}--share", ResourceType.GROUP, share_record_lock_duration_ms="15000")
    with one.subscribe(name) as first, two.subscribe(name) as second:
        # Both own half of the retry topic before there is anything to move there.
        eventually(lambda: assigned(cluster, f"{name}--retry") == [2, 2], 30)
        one.publish(name, b"x")
        taken = []
        while not taken:
            for holder, other in ((first, second), (second, first)):
                taken = taken or [(delivery, holder, other) for delivery in holder.receive(1, 0.1)]
        ((delivery, holder, other),) = taken
        assert other.receive(1, 17.0) == []
        (copy,) = cluster.records(f"{name}--retry")
        assert copy.value() == b"x"
        assert one.depth(name) == 1
        assert delivery.attempt == 1
        delivery.ack()
        holder.flush()
        assert sum(cluster.committed(f"{name}--retry", f"{name}--retry").values()) == 1
        assert one.depth(name) == 0
        assert other.receive(1, 0.5) == []
    assert cluster.records(f"{name}--dlq") == []


def assigned(cluster: Cluster, group: str) -> list[int]:
    """How many partitions each member has."""
    return sorted(len(member.assignment.topic_partitions) for member in cluster.group(group).members)
