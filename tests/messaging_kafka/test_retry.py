"""Retries on Kafka: a retry topic deleted while in use, and a process killed between a copy and its original's end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from messaging import Broker, Consumer, Delivery, DestinationNotFound, MessagingError, Queue, SettleFailed

from .cluster import Cluster, take

Connect = Callable[..., Broker]


def take_through_errors(consumer: Consumer, count: int, within: float) -> tuple[list[Delivery], list[MessagingError]]:
    """Up to `count` deliveries, and what the consumer was told meanwhile."""
    taken: list[Delivery] = []
    told: list[MessagingError] = []
    deadline = time.monotonic() + within
    while len(taken) < count and time.monotonic() < deadline:
        try:
            taken += consumer.receive(count - len(taken), 0.5)
        except MessagingError as error:
            told.append(error)
    return taken, told


def delete_topic(cluster: Cluster, name: str) -> None:
    cluster.admin.delete_topics([name])[name].result(15)


@pytest.mark.only("kafka:4.2")
def test_deleting_the_retry_topic_is_told_and_loses_nothing_of_a_consumer_that_lives(
    shares: Connect, cluster: Cluster, name: str
) -> None:
    broker = shares(Queue(name))
    ids = broker.publish_many(name, [b"0", b"1", b"2"])
    with broker.subscribe(name) as consumer:
        by_id = {d.id: d for d in take(consumer, 3)}
        waiting, then, last = (by_id[id_] for id_ in ids)
        waiting.nack(5.0)
        consumer.flush()
        delete_topic(cluster, f"{name}--retry")
        then.nack(0.5)
        last.nack(1.0)
        found, told = take_through_errors(consumer, 3, 45)
        assert {d.id for d in found} >= {then.id, last.id}
        assert told, "nobody said that the retry topic is gone"
        assert all(isinstance(error, DestinationNotFound | SettleFailed) for error in told)
        assert all(d.attempt == 2 for d in found)
        consumer.ack(found)
    with pytest.raises(DestinationNotFound, match="declare"):
        broker.subscribe(name)
    broker.declare(Queue(name))
    broker.publish(name, b"3")
    with broker.subscribe(name) as consumer:
        (delivery,) = take(consumer, 1)
        delivery.nack(0.5)
        (again,) = take(consumer, 1)
        assert (again.body, again.attempt) == (b"3", 2)
        again.ack()
        consumer.flush()
        assert consumer.lag() == 0


KILLED = """
import os, signal, sys, time
import messaging
from messaging_kafka.share_receiver import ShareReceiver
from messaging_kafka.group_receiver import GroupReceiver

def die(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)

ShareReceiver._copied = die
GroupReceiver._copied = die
url, name, how = sys.argv[1:]
with messaging.connect(url, topology=messaging.Queue(name)) as broker, broker.subscribe(name) as consumer:
    (delivery,) = consumer.receive(1, 30)
    delivery.nack(0.3) if how == "nack" else delivery.reject("no")
    time.sleep(60)
"""
"""Dies when the copy is confirmed and the original is not settled: the driver's own step in between."""


def kill_in_between(url: str, name: str, how: str) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, url, name, how], timeout=90, check=False)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.only("kafka:4.2")
def test_killed_between_the_copy_and_the_end_of_a_nack_it_comes_twice(
    shares: Connect, cluster: Cluster, url: str, name: str
) -> None:
    broker = shares(Queue(name))
    id_ = broker.publish(name, b"x")
    kill_in_between(url, name, "nack")
    with broker.subscribe(name) as consumer:
        both = take(consumer, 2, 90)
        assert [(d.id, d.attempt) for d in both] == [(id_, 2), (id_, 2)]
        consumer.ack(both)
        consumer.flush()
        assert consumer.receive(1, 1.0) == []
        assert consumer.lag() == 0


def test_killed_between_the_copy_and_the_end_of_a_reject_it_is_in_both_queues(
    connect: Connect, cluster: Cluster, url: str, name: str
) -> None:
    broker = connect(Queue(name))
    id_ = broker.publish(name, b"x")
    kill_in_between(url, name, "reject")
    assert len(cluster.records(f"{name}--dlq")) == 1
    with broker.subscribe(name) as consumer:
        (again,) = take(consumer, 1, 90)
        assert again.id == id_
        again.ack()
        consumer.flush()
        assert consumer.lag() == 0
    assert len(cluster.records(f"{name}--dlq")) == 1
