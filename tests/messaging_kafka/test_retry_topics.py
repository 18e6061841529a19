"""Retry topics of subscriptions, and of queues that are one consumer group: what the brokers hold, who gets it when."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic

import messaging
from messaging import Broker, Delivery, Message, Queue, RetryPolicy, Subscription, Topic, Worker
from messaging.dead_letter import ATTEMPTS
from messaging.errors import ConfigurationError, DestinationNotFound, TopologyError
from messaging_kafka.records import ATTEMPT, DUE

from .cluster import Cluster, take, uses_share_groups

Connect = Callable[..., Broker]


def retrying(topic: str, *levels: int, group: str = "g", partitions: int = 1, others: Sequence[str] = ()) -> Topic:
    subscription = Subscription(group, native={"kafka": {"retry_topics": list(levels)}})
    return Topic(topic, subscription, *others, native={"kafka": {"partitions": partitions}})


def header(record: Any, name: str) -> str:
    return dict(record.headers())[name].decode()


def eventually(condition: Callable[[], bool], what: str, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.05)


# -- what is made and what is refused


def test_they_are_made_with_their_source_and_deleted_with_it(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 1, 60, partitions=3, others=["other"]))
    made = {f"{name}--g--retry-1", f"{name}--g--retry-60"}
    assert {t for t in cluster.topics() if t.startswith(name) and "retry" in t} == made
    for topic in made:
        assert cluster.partitions(topic) == 3
        assert cluster.config(topic)["cleanup.policy"] == "delete"
    week = 7 * 24 * 3600 * 1000
    assert int(cluster.config(f"{name}--g--retry-60")["retention.ms"]) == week + 60_000
    with broker.subscribe(name, "g"):
        pass
    connect(retrying(name, 1, 60, partitions=3), create=False)
    broker.delete(Topic(name, "g", "other"))  # whoever deletes it need not know the option
    assert not {t for t in cluster.topics() if t.startswith(name)}


def test_a_longer_retention_and_larger_messages_are_theirs_too(connect: Connect, cluster: Cluster, name: str) -> None:
    native = {"kafka": {"retention": 30 * 24 * 3600, "config": {"max.message.bytes": "2000000"}}}
    connect(Topic(name, Subscription("g", native={"kafka": {"retry_topics": [5]}}), native=native))
    config = cluster.config(f"{name}--g--retry-5")
    assert config["retention.ms"] == str(30 * 24 * 3600 * 1000)
    assert int(config["max.message.bytes"]) == 2_000_000 + 16_384


@pytest.mark.parametrize(
    "wrong", [[], [0], [-1], [1.5], ["10"], [True], 10, "10", [10, 10], [60, 10], list(range(1, 12))]
)
def test_wrong_delays_are_refused_before_anything_is_made(
    connect: Connect, cluster: Cluster, name: str, wrong: Any
) -> None:
    with pytest.raises(ConfigurationError, match="retry_topics"):
        connect(Topic(name, Subscription("g", native={"kafka": {"retry_topics": wrong}})))
    assert not {t for t in cluster.topics() if t.startswith(name)}


def test_refused_where_the_order_would_be_lost(connect: Connect, cluster: Cluster, name: str) -> None:
    option = {"kafka": {"retry_topics": [10]}}
    for ordered in (Topic(name, Subscription("g", native=option), ordered=True), Queue(name, True, native=option)):
        with pytest.raises(ConfigurationError, match="overtaken"):
            connect(ordered)
    assert not {t for t in cluster.topics() if t.startswith(name)}


def test_refused_on_a_topic_and_where_a_share_group_reads(connect: Connect, cluster: Cluster, name: str) -> None:
    option = {"kafka": {"retry_topics": [10]}}
    with pytest.raises(ConfigurationError, match="each subscription"):
        connect(Topic(name, "g", native=option))
    if uses_share_groups(connect()):
        with pytest.raises(ConfigurationError, match="share group"):
            connect(Queue(name, native=option))
    with pytest.raises(ConfigurationError, match="there is only 'retry_topics'"):
        connect(Topic(name, Subscription("g", native={"kafka": {"retry_topic": [10]}})))
    assert not {t for t in cluster.topics() if t.startswith(name)}


def test_a_missing_one_is_told(connect: Connect, cluster: Cluster, name: str) -> None:
    connect(Topic(name, "g", native={"kafka": {"partitions": 1}}))
    with pytest.raises(DestinationNotFound, match="retry-5"):
        connect(retrying(name, 5), create=False)


@pytest.mark.parametrize("settings", [{"cleanup.policy": "compact"}, {"retention.ms": "5000"}])
def test_one_that_would_lose_messages_is_refused(
    connect: Connect, cluster: Cluster, name: str, settings: dict[str, str]
) -> None:
    topic = f"{name}--g--retry-5"
    cluster.admin.create_topics([NewTopic(topic, 1, config=settings)])[topic].result(15)
    with pytest.raises(TopologyError, match=r"retry-5.*may delete"):
        connect(retrying(name, 5))
    connect().delete(retrying(name, 5))


def test_one_taken_out_of_the_list_is_left_over(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 1, 3600))
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].nack(delay=3600)
        consumer.flush()
    assert broker.leftovers() == []
    fewer = connect(retrying(name, 1))
    (left,) = fewer.leftovers()
    assert (left.name, left.settings) == (f"{name}--g--retry-3600", {"messages": 1})
    assert "let them empty it" in left.why
    assert fewer.leftovers(delays=[1]) == [left]
    assert fewer.leftovers(Topic(f"{name}-new", "g")) == []
    assert not fewer.inspect(fewer.topology)[0].drifted


# -- a nack


def test_a_long_nack_is_a_copy_and_the_original_is_committed(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 2, others=["other"]))
    message = Message.of({"n": 1}, key="k", type="order.placed", headers={"h": "v"})
    broker.publish(name, message)
    with broker.subscribe(name, "g") as consumer, broker.subscribe(name, "other") as other:
        take(other, 1)[0].ack()
        first = take(consumer, 1)[0]
        nacked = time.time()
        first.nack(delay=2.5)
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 1}  # settled, though it waits
        (copy,) = cluster.records(f"{name}--g--retry-2")
        assert (copy.key(), copy.value()) == (b"k", first.body)
        assert header(copy, ATTEMPT) == "1"
        assert float(header(copy, DUE)) == pytest.approx(nacked + 2.5, abs=0.5)
        assert (broker.depth(name, "g"), consumer.lag()) == (1, 1)
        again = take(consumer, 1)[0]
        assert time.time() >= nacked + 2.5
        assert time.time() < nacked + 5
        assert (again.id, again.key, again.value, again.type) == (first.id, "k", {"n": 1}, "order.placed")
        assert (again.attempt, again.headers, again.timestamp) == (2, {"h": "v"}, first.timestamp)
        again.ack()
        consumer.flush()
        assert cluster.committed(f"{name}--g--retry-2", f"{name}--g--retry-2") == {0: 1}
        assert (broker.depth(name, "g"), consumer.lag()) == (0, 0)
        assert other.receive(10, 0.5) == []


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_with_either_group_protocol(connect: Connect, cluster: Cluster, name: str, protocol: str) -> None:
    broker = connect(retrying(name, 1), group_protocol=protocol)
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        for attempt in (1, 2, 3):
            delivery = take(consumer, 1)[0]
            assert delivery.attempt == attempt
            delivery.nack(delay=1)
        take(consumer, 1)[0].ack()
        consumer.flush()
        retry = f"{name}--g--retry-1"
        assert [header(record, ATTEMPT) for record in cluster.records(retry)] == ["1", "2", "3"]
        assert cluster.committed(retry, retry) == {0: 3}


def test_replay_leaves_them_alone(connect: Connect, name: str) -> None:
    broker = connect(retrying(name, 3))
    broker.publish_many(name, [b"a", b"b"])
    with broker.subscribe(name, "g") as consumer:
        first, second = take(consumer, 2)
        first.nack(delay=3)
        second.ack()
        consumer.flush()
        consumer.replay("beginning")
        again = take(consumer, 3)
        assert [(d.body, d.attempt) for d in again] == [(b"a", 1), (b"b", 1), (b"a", 2)]
        consumer.ack(again)


def test_a_delay_beyond_what_the_topic_keeps_is_fine(connect: Connect, cluster: Cluster, name: str) -> None:
    native = {"kafka": {"retention": 20, "partitions": 1}}
    broker = connect(Topic(name, Subscription("g", native={"kafka": {"retry_topics": [60]}}), native=native))
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].nack(delay=60)
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 1}
        assert len(cluster.records(f"{name}--g--retry-60")) == 1


def test_a_short_nack_stays_in_the_consumer(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 2))
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        for delay in (0, 1.0):
            take(consumer, 1)[0].nack(delay)
        again = take(consumer, 1)[0]
        assert again.attempt == 3
        assert cluster.committed(f"{name}--g", name) == {0: 0}
        assert cluster.records(f"{name}--g--retry-2") == []
        again.ack()


def test_a_delay_is_made_of_several_and_never_early(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 1, 3))
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        first = take(consumer, 1)[0]
        nacked = time.time()
        first.nack(delay=4.6)  # 3, then 1, then the rest in the consumer
        again = take(consumer, 1)[0]
        assert nacked + 4.6 <= time.time() < nacked + 8
        assert (again.attempt, again.body) == (2, b"x")
        again.ack()
        consumer.flush()
        assert [len(cluster.records(f"{name}--g--retry-{n}")) for n in (3, 1)] == [1, 1]
        assert broker.depth(name, "g") == 0


def test_other_messages_go_on_and_hold_no_position(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 30))
    broker.publish_many(name, [b"%d" % n for n in range(50)])
    with broker.subscribe(name, "g", prefetch=5) as consumer:
        for _ in range(50):
            delivery = take(consumer, 1)[0]
            delivery.nack(delay=30) if int(delivery.body) % 5 == 0 else delivery.ack()
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 50}
        assert {r.value() for r in cluster.records(f"{name}--g--retry-30")} == {b"%d" % n for n in range(0, 50, 5)}
        assert broker.depth(name, "g") == 10
        assert consumer.receive(10, 0.5) == []


def test_only_the_subscriptions_own_messages_pass_a_pattern(connect: Connect, cluster: Cluster, name: str) -> None:
    native = {"kafka": {"retry_topics": [1]}}
    broker = connect(Topic(name, Subscription("g", "order.*", native=native), native={"kafka": {"partitions": 1}}))
    broker.publish(name, b"no", type="else")
    broker.publish(name, b"yes", type="order.placed")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].nack(delay=1)
        again = take(consumer, 1)[0]
        assert (again.body, again.type) == (b"yes", "order.placed")
        again.ack()


def test_foreign_records_and_tombstones(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 1))
    cluster.produce(name, b"\xff\x00", key=b"\xfe", headers=[("a", b"\xff"), ("a", b"2")])
    cluster.produce(name, None, key=b"k")
    with broker.subscribe(name, "g") as consumer:
        ids = []
        for delivery in take(consumer, 2):
            ids.append(delivery.id)
            delivery.nack(delay=1)
        again = take(consumer, 2)
        assert [(d.id, d.attempt) for d in again] == [(id, 2) for id in ids]
        assert [(d.native.key(), d.native.value()) for d in again] == [(b"\xfe", b"\xff\x00"), (b"k", None)]
        assert [h for h in again[0].native.headers() if h[0] == "a"] == [("a", b"\xff"), ("a", b"2")]
        consumer.ack(again)


def test_prefetch_bounds_what_is_handed_out_of_all_topics(connect: Connect, name: str) -> None:
    broker = connect(retrying(name, 1))
    broker.publish_many(name, [b"%d" % n for n in range(12)])
    with broker.subscribe(name, "g", prefetch=4) as consumer:
        for _ in range(8):
            take(consumer, 1)[0].nack(delay=1)
        seen: dict[bytes, int] = {}
        while len(seen) < 12:
            held = take(consumer, min(4, 12 - len(seen)))
            assert len(held) < 4 or consumer.receive(10, 1.2) == []
            seen |= {d.body: d.attempt for d in held}
            consumer.ack(held)
        assert sorted(seen.values()) == [1] * 4 + [2] * 8
        assert consumer.receive(10, 0.5) == []


def test_a_dead_letter_after_retries_counts_the_attempts(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 1))
    attempts: list[int] = []
    worker = Worker(broker)

    @worker.on(name, "g", retry=RetryPolicy(attempts=3, delays=(1.0,)))
    def fail(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        raise RuntimeError("no")

    with worker:
        broker.publish(name, b"x")
        eventually(lambda: broker.dead_letter_depth(name, "g") == 1, "a dead letter")
    assert attempts == [1, 2, 3]
    (dead,) = cluster.records(f"{name}--g--dlq")
    assert not {ATTEMPT, DUE} & {key for key, _ in dead.headers()}
    assert header(dead, ATTEMPTS) == "3"
    assert broker.depth(name, "g") == 0


# -- consumers that come, go and die


def test_close_leaves_what_waits_to_another(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 3))
    broker.publish(name, b"x")
    consumer = broker.subscribe(name, "g")
    nacked = time.time()
    take(consumer, 1)[0].nack(delay=3)
    consumer.close()  # with the copy perhaps still on its way
    assert cluster.committed(f"{name}--g", name) == {0: 1}
    with broker.subscribe(name, "g") as consumer:
        again = take(consumer, 1)[0]
        assert time.time() >= nacked + 3
        assert again.attempt == 2
        again.ack()
        consumer.flush()
        assert broker.depth(name, "g") == 0


_MEMBER = """
import sys, messaging
from messaging import Subscription, Topic
url, name = sys.argv[1:]
native = {"kafka": {"retry_topics": [4]}}
topic = Topic(name, Subscription("g", native=native), native={"kafka": {"partitions": 2}})
broker = messaging.connect(url, topology=topic, group_protocol="classic", config={"session.timeout.ms": "6000"})
consumer = broker.subscribe(name, "g")
held = []
while len(held) < 10:
    held += consumer.receive(10 - len(held), 5)
for delivery in held:
    delivery.nack(delay=4)
consumer.flush()
print("nacked", flush=True)
if consumer.receive(1, 30):
    print("again", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def member(url: str, name: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _MEMBER, url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("while_waiting", [True, False])
def test_what_waits_with_a_killed_member_is_taken_over(
    connect: Connect, cluster: Cluster, name: str, member: subprocess.Popen[str], while_waiting: bool
) -> None:
    broker = connect(retrying(name, 4, partitions=2))
    broker.publish_many(name, [Message.of(n, key=f"k{n}") for n in range(10)])
    assert member.stdout is not None
    assert member.stdout.readline() == "nacked\n"
    if not while_waiting:
        assert member.stdout.readline() == "again\n"
    member.kill()
    member.wait()
    assert sum(cluster.committed(f"{name}--g", name).values()) == 10
    with broker.subscribe(name, "g") as consumer:
        again = take(consumer, 10, 40)
        assert {d.value for d in again} == set(range(10))
        assert {d.attempt for d in again} == {2}
        consumer.ack(again)
        consumer.flush()
        assert consumer.receive(10, 0.5) == []
        assert broker.depth(name, "g") == 0


def test_a_member_that_joins_shares_them(connect: Connect, name: str) -> None:
    broker = connect(retrying(name, 3, partitions=4))
    with broker.subscribe(name, "g") as one:
        broker.publish_many(name, [Message.of(n, key=f"k{n}") for n in range(40)])
        for delivery in take(one, 40):
            delivery.nack(delay=3)
        one.flush()
        with broker.subscribe(name, "g") as two:
            seen: list[int] = []
            deadline = time.monotonic() + 30
            while len(set(seen)) < 40 and time.monotonic() < deadline:
                for consumer in (one, two):
                    got = consumer.receive(40, 0.1)
                    seen += [d.value for d in got]
                    consumer.ack(got)
            assert sorted(set(seen)) == list(range(40))
            eventually(lambda: broker.depth(name, "g") == 0, "a depth of 0")


def test_paused_they_wait(connect: Connect, name: str) -> None:
    broker = connect(retrying(name, 1))
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].nack(delay=1)
        consumer.pause()
        assert consumer.receive(1, 2.0) == []
        consumer.resume()
        take(consumer, 1)[0].ack()


def test_what_is_not_due_is_not_all_read(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 1, 60, partitions=2))
    now = time.time()
    waiting = [("x-messaging-not-before", str(now + 60).encode()), (ATTEMPT, b"1")]
    retry = f"{name}--g--retry-60"
    cluster.produce(retry, *[b"later"] * 3000, partition=0, headers=waiting)
    cluster.produce(retry, b"due", partition=1, headers=[("x-messaging-not-before", b"1"), (ATTEMPT, b"1")])
    with broker.subscribe(name, "g", prefetch=10) as consumer:
        (due,) = take(consumer, 1)
        assert (due.body, due.attempt) == (b"due", 2)
        due.ack()
        consumer.flush()
        assert cluster.committed(retry, retry).get(1) == 1
        receiver: Any = consumer._receiver
        (loop,) = [loop for loop in receiver._delays if loop._seconds == 60]
        eventually(lambda: loop._gapped == {0}, "the partition to pause")
        assert loop.early < 3000
        assert consumer.lag() == 3000


def test_a_backlog_that_is_due_at_once_comes_whole(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 2))
    retry = f"{name}--g--retry-2"
    due = repr(time.time() + 2).encode()
    cluster.produce(retry, *[b"%d" % n for n in range(3000)], partition=0, headers=[(DUE, due), (ATTEMPT, b"1")])
    with broker.subscribe(name, "g", prefetch=100) as consumer:
        got: list[int] = []
        deadline = time.monotonic() + 40
        while len(got) < 3000 and time.monotonic() < deadline:
            batch = consumer.receive(100, 1)
            assert not batch or time.time() >= float(due)
            got += [int(d.body) for d in batch]
            consumer.ack(batch)
        assert sorted(got) == list(range(3000))
        consumer.flush()
        assert broker.depth(name, "g") == 0


# -- operating


def test_purge_drops_what_waits(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 2))
    broker.publish_many(name, [b"a", b"b"])
    with broker.subscribe(name, "g") as consumer:
        for delivery in take(consumer, 2):
            delivery.nack(delay=2)
        consumer.flush()
        assert broker.depth(name, "g") == 2
        broker.purge(name, "g")
        assert broker.depth(name, "g") == 0
        assert consumer.receive(2, 3.0) == []
        broker.publish(name, b"c")
        delivery = take(consumer, 1)[0]
        delivery.nack(delay=2)
        consumer.flush()
    assert broker.depth(name, "g") == 1
    broker.purge(name, "g")
    assert broker.depth(name, "g") == 0
    with broker.subscribe(name, "g") as consumer:
        assert consumer.receive(1, 3.0) == []


def test_what_waits_in_a_topic_declared_no_longer_is_delivered(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(retrying(name, 2))
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].nack(delay=2)
    for destination in (retrying(name, 5), Topic(name, "g", native={"kafka": {"partitions": 1}})):
        changed = connect(destination)
        assert changed.depth(name, "g") == 1
        with changed.subscribe(name, "g") as consumer:
            assert take(consumer, 1)[0].attempt == 2
    changed.delete(destination)
    assert not {t for t in cluster.topics() if t.startswith(name)}


def test_a_retry_topic_deleted_in_use_loses_nothing_that_is_nacked_then(
    connect: Connect, cluster: Cluster, name: str
) -> None:
    broker = connect(retrying(name, 1))
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        first = take(consumer, 1)[0]
        topic = f"{name}--g--retry-1"
        cluster.admin.delete_topics([topic])[topic].result(15)
        eventually(lambda: topic not in cluster.topics(), "the topic to be gone")
        first.nack(delay=1)
        deadline = time.monotonic() + 60
        again: list[Delivery] = []
        while not again and time.monotonic() < deadline:
            with suppress(DestinationNotFound):  # the consumer is told that the topic is gone
                again = consumer.receive(1, 1)
        assert (again[0].body, again[0].attempt) == (b"x", 2)
        again[0].ack()


def test_a_queue_that_is_one_consumer_group(url: str, cluster: Cluster, name: str) -> None:
    queue = Queue(name, native={"kafka": {"partitions": 1, "retry_topics": [1]}})
    with messaging.connect(url, topology=queue, queues="group") as broker:
        broker.publish_many(name, [b"a", b"b"])
        with broker.subscribe(name) as consumer:
            first, second = take(consumer, 2)
            first.nack(delay=1)
            second.ack()
            consumer.flush()
            assert cluster.committed(f"{name}--queue", name) == {0: 2}
            assert len(cluster.records(f"{name}--retry-1")) == 1
            assert broker.depth(name) == 1
            again = take(consumer, 1)[0]
            assert (again.body, again.attempt) == (b"a", 2)
            again.nack(delay=1)
            consumer.flush()
            broker.purge(name)
            assert broker.depth(name) == 0
            assert consumer.receive(1, 2.0) == []
        broker.delete(queue)
    assert not {t for t in cluster.topics() if t.startswith(name)}
