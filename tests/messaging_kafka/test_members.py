"""Members of a group that come, go and die: nobody loses a message, and nobody commits what is not theirs any more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import ConsumerGroupType

from messaging import Broker, Delivery, Topic
from messaging.errors import ConfigurationError

from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]
Protocols = pytest.mark.parametrize("protocol", ["classic", "consumer"])

_MEMBER = """
import sys, messaging
url, name = sys.argv[1:]
broker = messaging.connect(url, topology=messaging.Topic(name, "g"), group_protocol="classic",
                           config={"session.timeout.ms": "6000"})
consumer = broker.subscribe(name, "g")
held = []
while len(held) < 10:
    held += consumer.receive(10 - len(held), 5)
for index in (0, 1, 2, 5):
    held[index].ack()
consumer.flush()
print("held", flush=True)
sys.stdin.read()
"""


@Protocols
def test_both_protocols_are_what_they_say(connect: Connect, cluster: Cluster, name: str, protocol: str) -> None:
    broker = connect(one_partition(name), group_protocol=protocol)
    broker.publish(name, b"x")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].ack()
        consumer.flush()
        group = cluster.group(f"{name}--g")
        assert group.type is {"classic": ConsumerGroupType.CLASSIC, "consumer": ConsumerGroupType.CONSUMER}[protocol]
        assert len(group.members) == 1
    assert cluster.committed(f"{name}--g", name) == {0: 1}


def test_another_protocol_is_refused(connect: Connect) -> None:
    with pytest.raises(ConfigurationError, match="group_protocol"):
        connect(group_protocol="eager")


@pytest.fixture
def member(url: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds ten messages of subscription `g`, of which it has acked 0, 1, 2 and 5."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MEMBER, url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.only("kafka:4.2")
def test_what_a_killed_member_had_not_settled_comes_again(
    connect: Connect, cluster: Cluster, name: str, member: subprocess.Popen[str]
) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b"%d" % n for n in range(10)])
    assert member.stdout is not None
    assert member.stdout.readline() == "held\n"
    assert cluster.committed(f"{name}--g", name) == {0: 3}
    member.kill()
    member.wait()
    with broker.subscribe(name, "g") as consumer:
        taken = take(consumer, 6, 30)
        assert [int(d.body) for d in taken] == [3, 4, 6, 7, 8, 9]
        assert cluster.committed(f"{name}--g", name) == {0: 3}
        consumer.ack(taken)
        consumer.flush()
    assert cluster.committed(f"{name}--g", name) == {0: 10}


@Protocols
def test_a_partition_that_is_handed_over_is_the_new_owners_alone(
    connect: Connect, cluster: Cluster, name: str, protocol: str
) -> None:
    topic = Topic(name, "g", native={"kafka": {"partitions": 2}})
    one, two = (connect(topic, group_protocol=protocol) for _ in range(2))
    for partition in (0, 1):
        cluster.produce(name, *(b"%d.%d" % (partition, n) for n in range(5)), partition=partition)
    with one.subscribe(name, "g") as first:
        held = {d.body: d for d in take(first, 10)}
        for body in (b"0.0", b"0.1", b"0.3", b"1.0", b"1.1", b"1.3"):
            held[body].ack()
        with two.subscribe(name, "g") as second:
            # The first goes on polling behind its back, and gives one partition away with all that it has settled.
            got = take(second, 2, 40)
            gone = got[0].native.partition()
            assert [d.body for d in got] == [b"%d.%d" % (gone, n) for n in (2, 4)]
            assert cluster.committed(f"{name}--g", name)[gone] == 2

            # What the first still holds of it counts no more, whatever becomes of it.
            stale = [held[d.body] for d in got]
            assert not any(first._receiver.is_live(d) for d in stale)
            first.ack([held[b"%d.3" % gone]])
            stale[0].nack()
            stale[1].reject("mine no more")
            kept = [d for d in held.values() if d.native.partition() != gone and not d.settled]
            first.ack(kept)
            first.flush()
            assert cluster.committed(f"{name}--g", name) == {gone: 2, 1 - gone: 5}
            assert first.receive(1, 0.3) == []

            finish(second, got)
            assert cluster.committed(f"{name}--g", name) == {0: 5, 1: 5}
    assert cluster.records(f"{name}--g--dlq") == []


def finish(consumer: object, deliveries: list[Delivery]) -> None:
    consumer.ack(deliveries)  # type: ignore[attr-defined]
    consumer.flush()  # type: ignore[attr-defined]


@pytest.mark.only("kafka:4.2")
@Protocols
def test_members_come_and_go_and_every_message_is_handled(
    connect: Connect, cluster: Cluster, name: str, protocol: str
) -> None:
    topic = Topic(name, "g", native={"kafka": {"partitions": 4}})
    brokers = [connect(topic, group_protocol=protocol) for _ in range(3)]
    sent = set(brokers[0].publish_many(name, [b"%d" % n for n in range(400)]))
    handled: set[str] = set()
    consumers = [brokers[0].subscribe(name, "g", prefetch=20)]
    turn = 0
    while handled < sent:
        turn += 1
        assert turn < 600, f"{len(sent - handled)} messages never came"
        for consumer in list(consumers):
            for delivery in consumer.receive(5, 0.05):
                handled.add(delivery.id)
                delivery.ack()
        if turn == 5:
            consumers.append(brokers[1].subscribe(name, "g", prefetch=20))
        elif turn == 10:
            consumers.pop(0).close()
            consumers.append(brokers[2].subscribe(name, "g", prefetch=20))
    for consumer in consumers:
        consumer.close()
    ends = dict.fromkeys(range(4), 0)
    for record in cluster.records(name):
        ends[record.partition()] += 1
    committed = cluster.committed(f"{name}--g", name)
    # What came twice is settled twice at most; the watermark is never past what was handled.
    assert {p: offset for p, offset in committed.items() if offset > ends[p]} == {}
    with brokers[0].subscribe(name, "g") as last:
        again = last.receive(400, 0.5)
        assert {d.id for d in again} <= handled
