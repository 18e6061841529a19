"""Retry topics while connections are cut, the broker restarts, or the process dies at a step of the hand-over."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from messaging import Broker, Consumer, Message, SettleFailed
from messaging_contract.harness import Harness, Link

from .cluster import Cluster, take
from .test_retry_topics import eventually, retrying

Connect = Callable[..., Broker]


@pytest.fixture
def link(kafka: Harness) -> Iterator[Link]:
    if kafka.link is None:
        pytest.skip("Kafka tells clients where to go, so its connections are cut only where it runs in a container")
    link = kafka.link()
    yield link
    link.resume()


def take_again(consumer: Consumer, values: set[int], within: float = 60.0) -> Counter[tuple[int, int]]:
    """Acks until each of `values` came again; what came, as (value, attempt)."""
    came: Counter[tuple[int, int]] = Counter()
    deadline = time.monotonic() + within
    while values - {value for value, _ in came} and time.monotonic() < deadline:
        try:
            got = consumer.receive(100, 0.5)
        except SettleFailed:
            continue
        came.update((d.value, d.attempt) for d in got)
        consumer.ack(got)
    assert {value for value, _ in came} == values
    return came


def test_nacks_while_the_connection_is_cut(connect: Connect, cluster: Cluster, name: str, link: Link) -> None:
    broker = connect(retrying(name, 2, partitions=2))
    broker.publish_many(name, [Message.of(n, key=f"k{n}") for n in range(20)])
    with broker.subscribe(name, "g", prefetch=20) as consumer:
        held = take(consumer, 20)
        link.cut()
        nacked = time.time()
        for delivery in held:
            delivery.nack(delay=2)
        assert consumer.receive(20, 1.0) == []
        link.resume()
        came = take_again(consumer, set(range(20)))
        assert time.time() >= nacked + 2
        assert {attempt for _, attempt in came} == {2}
        consumer.flush(20)
        eventually(lambda: broker.depth(name, "g") == 0, "a depth of 0")


def test_a_restart_with_messages_that_wait(connect: Connect, cluster: Cluster, name: str, kafka: Harness) -> None:
    if kafka.restart is None:
        pytest.skip("this Kafka cannot be restarted from here")
    broker = connect(retrying(name, 4, partitions=2))
    broker.publish_many(name, [Message.of(n, key=f"k{n}") for n in range(20)])
    with broker.subscribe(name, "g") as consumer:
        for delivery in take(consumer, 20):
            delivery.nack(delay=4)
        consumer.flush()
        kafka.restart()
        came = take_again(consumer, set(range(20)), 90)
        assert {attempt for _, attempt in came} == {2}
        consumer.flush(30)
        eventually(lambda: broker.depth(name, "g") == 0, "a depth of 0", 40)


_MEMBER = """
import sys, messaging
from messaging import Subscription, Topic
url, name, step = sys.argv[1:]
native = {"kafka": {"retry_topics": [2]}}
topic = Topic(name, Subscription("g", native=native), native={"kafka": {"partitions": 1}})
broker = messaging.connect(url, topology=topic, group_protocol="classic", config={"session.timeout.ms": "6000"})
consumer = broker.subscribe(name, "g")
held = []
while len(held) < 10:
    held += consumer.receive(10 - len(held), 5)
if step != "before":
    for delivery in held:
        delivery.nack(delay=2)
if step == "settled":
    consumer.flush()
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("step", ["before", "sent", "copied", "settled"])
def test_killed_at_a_step_of_the_hand_over(connect: Connect, cluster: Cluster, name: str, url: str, step: str) -> None:
    broker = connect(retrying(name, 2))
    broker.publish_many(name, list(range(10)))
    process = subprocess.Popen(
        [sys.executable, "-c", _MEMBER, url, name, step], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        if step == "copied":
            eventually(lambda: len(cluster.records(f"{name}--g--retry-2")) == 10, "ten copies")
    finally:
        process.kill()
        process.communicate()
    copies = len(cluster.records(f"{name}--g--retry-2"))
    assert copies == {"before": 0, "sent": copies}.get(step, 10)
    with broker.subscribe(name, "g") as consumer:
        came = take_again(consumer, set(range(10)))
        deadline = time.monotonic() + 30
        while broker.depth(name, "g"):  # the other half of duplicates
            assert time.monotonic() < deadline
            late = consumer.receive(100, 0.5)
            came.update((d.value, d.attempt) for d in late)
            consumer.ack(late)
    assert sum(came.values()) <= 10 + copies
    assert set(came.values()) == {1}, "one delivery an attempt"
    if step == "settled":
        assert {attempt for _, attempt in came} == {2}
