"""What declaring creates, checks, refuses and removes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from messaging import Broker, Queue, Subscription, Topic
from messaging.errors import (
    ConfigurationError,
    DestinationNotFound,
    PublishTimeout,
    TopologyError,
    UnsupportedCapability,
)

from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]


def test_native_options_create_what_they_say(connect: Connect, cluster: Cluster, name: str) -> None:
    native = {"partitions": 3, "replication_factor": 1, "retention": 3600, "config": {"max.message.bytes": "5000"}}
    connect(Topic(name, "g", native={"kafka": native}), Topic(name + "-c", native={"kafka": {"compact": True}}))
    config = cluster.config(name)
    assert (config["retention.ms"], config["max.message.bytes"]) == ("3600000", "5000")
    assert config["cleanup.policy"] == "delete"
    assert cluster.config(name + "-c")["cleanup.policy"] == "compact"
    assert (cluster.partitions(name), cluster.partitions(f"{name}--g--dlq")) == (3, 3)
    assert int(cluster.config(f"{name}--g--dlq")["max.message.bytes"]) > 5000 + 4096, "no room for a long reason"


def test_partitions_are_added_and_never_silently_missing(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    more = Topic(name, "g", native={"kafka": {"partitions": 3}})
    broker.publish(name, b"before")
    with pytest.raises(TopologyError, match="1 partitions and 3"):
        connect(more, create=False)
    connect(more)
    connect(one_partition(name))  # more than asked for is fine
    assert cluster.partitions(name) == 3
    cluster.produce(name, b"after", partition=2)
    with broker.subscribe(name, "g") as consumer:
        assert {d.body for d in take(consumer, 2)} == {b"before", b"after"}


def test_a_topic_that_is_refused_does_not_grow(connect: Connect, cluster: Cluster, name: str) -> None:
    connect(Topic(name, "g", native={"kafka": {"partitions": 1}}))
    with pytest.raises(TopologyError, match=r"retention\.ms"):
        connect(Topic(name, "g", native={"kafka": {"partitions": 2, "retention": 3600}}))
    assert cluster.partitions(name) == 1


def test_an_ordered_topic_does_not_grow(connect: Connect, cluster: Cluster, name: str) -> None:
    connect(one_partition(name, ordered=True))
    with pytest.raises(TopologyError, match="is ordered and has 1 partitions"):
        connect(Topic(name, "g", ordered=True, native={"kafka": {"partitions": 2}}))
    assert cluster.partitions(name) == 1


def test_a_topic_with_other_settings_is_refused(connect: Connect, name: str) -> None:
    connect(Topic(name, native={"kafka": {"retention": 3600}}))
    with pytest.raises(TopologyError, match=r"retention\.ms=3600000"):
        connect(Topic(name, native={"kafka": {"retention": 60}}))
    with pytest.raises(TopologyError, match="replication_factor=1 and is declared with 2"):
        connect(Topic(name, native={"kafka": {"replication_factor": 2}}))
    with pytest.raises(TopologyError, match="knows no setting"):
        connect(Topic(name, native={"kafka": {"config": {"no.such.setting": "1"}}}))


def test_a_topic_that_deletes_what_nobody_has_read_is_refused(connect: Connect, cluster: Cluster, name: str) -> None:
    own = [Topic(name, "g"), Queue(f"{name}-q")]
    broker = connect(*own)
    for topic in [topic for topic in cluster.topics() if topic.startswith(name)]:
        assert cluster.config(topic)["cleanup.policy"] == "delete"
        cluster.configure(topic, cleanup_policy="compact,delete")
        with pytest.raises(
            TopologyError, match=f"{topic}' exists with cleanup.policy=compact,delete, which may delete"
        ):
            connect(*own)
        with pytest.raises(TopologyError, match=r"cleanup\.policy"):
            connect(*own, create=False)
        (found,) = [finding for finding in broker.inspect(own) if finding.state != "there"]
        assert (found.part.name, str(found.differences[0])) == (
            topic,
            "cleanup.policy is compact,delete and should be delete",
        )
        cluster.configure(topic, cleanup_policy="delete")
    connect(*own)


def test_a_compacted_topic_is_declared_as_one(connect: Connect, cluster: Cluster, name: str) -> None:
    compacted = Topic(name, "g", native={"kafka": {"compact": True}})
    connect(compacted)
    assert cluster.config(f"{name}--g--dlq")["cleanup.policy"] == "delete"
    connect(compacted)
    with pytest.raises(TopologyError, match=r"cleanup\.policy=compact"):
        connect(Topic(name, "g"))


@pytest.mark.parametrize(
    "wrong", [{"partition": 3}, {"partitions": 0}, {"retention": "1h"}, {"config": {"retention.ms": 5}}], ids=str
)
def test_wrong_native_options_create_nothing(
    connect: Connect, cluster: Cluster, name: str, wrong: dict[str, Any]
) -> None:
    broker = connect()
    with pytest.raises(ConfigurationError, match="native kafka option"):
        broker.declare([Topic(name + "-good"), Topic(name, native={"kafka": wrong})])
    assert not {name, name + "-good"} & cluster.topics()


def test_a_setting_that_the_broker_refuses(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect()
    for native in ({"config": {"no.such.setting": "1"}}, {"replication_factor": 5}):
        with pytest.raises(TopologyError):
            broker.declare(Topic(name, native={"kafka": native}))
    assert name not in cluster.topics()


def test_checking_only(connect: Connect, cluster: Cluster, name: str) -> None:
    with pytest.raises(DestinationNotFound):
        connect(one_partition(name), create=False)
    assert name not in cluster.topics()
    connect(one_partition(name))
    connect(one_partition(name), create=False)
    with pytest.raises(DestinationNotFound):
        connect(one_partition(name, "other"), create=False)


def test_a_subscription_begins_when_it_is_declared(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name, "old"))
    broker.publish_many(name, [b"1", b"2"])
    broker.declare(one_partition(name, "new"))
    assert cluster.committed(f"{name}--old", name) == {0: 0}
    assert cluster.committed(f"{name}--new", name) == {0: 2}
    broker.declare(one_partition(name, "new"))  # again, and it stays where it is
    broker.publish(name, b"3")
    with broker.subscribe(name, "new") as consumer:
        assert take(consumer, 1)[0].body == b"3"


def test_a_group_is_not_used_with_the_other_kind_of_order(connect: Connect, name: str) -> None:
    connect(one_partition(name))
    with pytest.raises(TopologyError, match="unordered, and is declared ordered"):
        connect(one_partition(name, ordered=True))


def test_delete_leaves_nothing(connect: Connect, cluster: Cluster, name: str) -> None:
    topology = [one_partition(name), Queue(name + "-q")]
    broker = connect(*topology)
    for destination in topology:
        broker.publish(destination, b"x")
    with broker.subscribe(name, "g") as consumer, broker.subscribe(name + "-q") as other:
        take(consumer, 1)[0].ack()
        take(other, 1)[0].ack()
    broker.delete(topology)
    broker.delete(topology)
    assert not [topic for topic in cluster.topics() if topic.startswith(name)]
    groups = cluster.admin.list_consumer_groups().result(15).valid
    assert not [group.group_id for group in groups if group.group_id in (f"{name}--g", f"{name}-q--queue")]
    broker.declare(Topic(name, Subscription("g")))
    with broker.subscribe(name, "g") as consumer:
        assert consumer.receive(1, 0.5) == []


def test_a_missing_topic(connect: Connect, name: str) -> None:
    broker = connect(create=False)
    with pytest.raises(DestinationNotFound, match="create=True"):
        broker.publish(Queue(name), b"x")
    with pytest.raises(DestinationNotFound):
        broker.subscribe(Queue(name))


def test_nothing_waits_longer_than_its_topic_keeps_it(connect: Connect, cluster: Cluster, name: str) -> None:
    day = 24 * 3600
    brief = Queue(f"{name}-brief", native={"kafka": {"retention": 60}})
    long = Queue(f"{name}-long", native={"kafka": {"retention": 30 * day}})
    broker = connect(brief, long)
    for queue, most in ((brief, 60), (long, 30 * day)):
        broker.publish(queue, b"x")
        with broker.subscribe(queue) as consumer:
            (delivery,) = take(consumer, 1)
            with pytest.raises(UnsupportedCapability, match="retention"):
                delivery.nack(delay=most + 1)
            assert not delivery.settled
            delivery.nack(delay=most - 1)
            consumer.flush()
    for copies in [topic for topic in cluster.topics() if topic.startswith(f"{long.name}--")]:
        assert cluster.config(copies)["retention.ms"] == str(30 * day * 1000)
    assert cluster.config(f"{brief.name}--dlq")["retention.ms"] == str(7 * day * 1000)


def test_a_topic_that_somebody_made_again_takes_messages_at_once(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"1")
    cluster.admin.delete_topics([name])[name].result(15)
    deadline = time.monotonic() + 60
    with pytest.raises(DestinationNotFound):
        while time.monotonic() < deadline:  # the client learns of it within seconds
            with suppress(PublishTimeout):
                broker.publish(name, b"2")
    connect(Queue(name))
    broker.publish(name, b"3")
    assert cluster.records(name)[-1].value() == b"3"
