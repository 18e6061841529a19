"""What a plan says is what declaring makes, and what a look at the cluster tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import ResourceType

import messaging
from messaging import (
    Broker,
    ConfigurationError,
    Finding,
    Queue,
    Subscription,
    Topic,
    Topology,
    TopologyError,
    UnsupportedCapability,
)
from messaging.topology import Destination
from messaging_kafka import KafkaDriver, KafkaOptions

from .cluster import Cluster

Connect = Callable[..., Broker]
Inside = Callable[[str, str], str]


def everything(name: str) -> list[Destination]:
    return [
        Queue(name, native={"kafka": {"partitions": 2, "retention": 30 * 86400}}),
        Queue(f"{name}-o", ordered=True),
        Topic(
            f"{name}-t",
            Subscription("a", "x.#"),
            Subscription("b", dead_letter=False),
            native={"kafka": {"partitions": 3, "replication_factor": 1, "config": {"max.message.bytes": "5000"}}},
        ),
    ]


def states(findings: list[Finding]) -> set[str]:
    return {finding.state for finding in findings}


def test_what_is_planned_is_what_is_made(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect()
    before = cluster.topics()
    assert states(broker.inspect(everything(name))) == {"missing"}
    assert states(broker.inspect(everything(name))) == {"missing"}, "looking made something"
    assert {topic for topic in cluster.topics() - before if name in topic} == set()
    broker.declare(everything(name))
    findings = broker.inspect(everything(name))
    assert [finding for finding in findings if finding.state != "there"] == []
    planned = {finding.part.name for finding in findings if finding.part.kind == "topic"}
    assert {topic for topic in cluster.topics() if topic.startswith(name)} == planned
    for part in (finding.part for finding in findings if finding.part.kind == "topic"):
        settings: dict[str, Any] = {"partitions": cluster.partitions(part.name), **cluster.config(part.name)}
        assert {key: settings.get(key) for key in part.settings if key != "replication.factor"} == {
            key: value for key, value in part.settings.items() if key != "replication.factor"
        }


def test_what_was_changed_is_told(connect: Connect, cluster: Cluster, name: str) -> None:
    native = {"retention": 3600, "partitions": 2}
    broker = connect(Topic(name, "g", native={"kafka": native}))
    cluster.configure(name, retention_ms="60000")
    cluster.configure(f"{name}--g--dlq", max_message_bytes="1000")
    wanted = Topic(name, "g", native={"kafka": {**native, "partitions": 3, "replication_factor": 2}})
    found = {finding.part.name: finding for finding in broker.inspect(wanted)}
    assert [str(difference) for difference in found[name].differences] == [
        "partitions is 2 and should be 3",
        "replication.factor is 1 and should be 2",
        "retention.ms is 60000 and should be 3600000",
    ]
    assert f"--entity-name {name} --add-config retention.ms=3600000" in found[name].way_out
    assert "kafka-reassign-partitions.sh" in found[name].way_out
    dead_letters = {difference.setting: difference for difference in found[f"{name}--g--dlq"].differences}
    assert dead_letters["max.message.bytes"].found == "1000"
    assert found[f"{name}--g"].state == "there"
    with pytest.raises(TopologyError):
        broker.declare(Topic(name, "g", native={"kafka": {**native, "replication_factor": 2}}))


def test_a_topic_for_copies_may_take_more(connect: Connect, cluster: Cluster, name: str) -> None:
    topic = Topic(name, "g", native={"kafka": {"retention": 30 * 86400}})
    broker = connect(topic)
    cluster.configure(f"{name}--g--dlq", max_message_bytes="9000000", retention_ms="-1")
    assert states(broker.inspect(topic)) == {"there"}


def test_the_other_kind_of_order(connect: Connect, name: str) -> None:
    broker = connect(Queue(name, ordered=True))
    found = {finding.part.kind: finding for finding in broker.inspect(Topology(Queue(name, ordered=True)))}
    assert found["consumer group"].state == "there"
    topic = Topic(f"{name}-t", "g")
    connect(topic)
    (group,) = [f for f in broker.inspect(Topic(topic.name, "g", ordered=True)) if f.part.kind == "consumer group"]
    assert [str(difference) for difference in group.differences] == ["order is unordered and should be ordered"]


def test_a_share_group(shares: Connect, cluster: Cluster, name: str) -> None:
    broker = shares(Queue(name))
    cluster.configure(f"{name}--share", ResourceType.GROUP, share_record_lock_duration_ms="20000")
    (group,) = [finding for finding in broker.inspect(Queue(name)) if finding.part.kind == "share group"]
    (difference,) = group.differences
    assert (difference.setting, difference.found) == ("share.record.lock.duration.ms", "20000")
    broker.declare(Queue(name))
    with shares() as other:
        other.declare(Queue(name))
        assert states(other.inspect(Queue(name))) == {"there"}


def test_without_a_cluster(name: str) -> None:
    driver = KafkaDriver(KafkaOptions(hosts=(("127.0.0.1", 1),)))
    assert driver.assume(None) == "Kafka 4.2"
    assert "share group" in {part.kind for part in driver.plan(Topology(Queue(name)))}
    assert driver.assume("4.1.1") == "Kafka 4.1"
    assert "share group" not in {part.kind for part in driver.plan(Topology(Queue(name)))}
    assert "client" not in vars(driver._admin), "it was about to connect"
    for wrong in ("", "x", "3.9", "4.x"):
        with pytest.raises(ConfigurationError, match="supported"):
            driver.assume(wrong)
    with pytest.raises(UnsupportedCapability):
        KafkaDriver(KafkaOptions(queues="share")).assume("4.1")
    with pytest.raises(ConfigurationError, match="retentoin"):
        driver.plan(Topology(Queue(name, native={"kafka": {"retentoin": 1}})))


def test_commands() -> None:
    driver = KafkaDriver(KafkaOptions(hosts=(("one", 1), ("two", 2))))
    driver.assume("4.1")
    awkward = Queue("q", native={"kafka": {"config": {"cleanup.policy": "delete", "x": "it's; rm -rf $HOME"}}})
    script = driver.export(driver.plan(Topology(awkward, *everything("n"))), "kafka")
    assert "BOOTSTRAP=one:1,two:2\n" in script
    assert """--config 'x=it'"'"'s; rm -rf $HOME'""" in script
    assert "--topic n-t --partitions 3 --replication-factor 1 --config max.message.bytes=5000" in script
    with pytest.raises(ConfigurationError, match="kafka"):
        driver.export([], "terraform")


SCRIPTS = """
PATH=/opt/kafka/bin:/tmp/kafka-bin:$PATH
mkdir -p /tmp/kafka-bin
shim() {
  printf '#!/bin/sh\\nexec java -Xmx128m -cp "/opt/kafka/libs/*" %s "$@"\\n' "$2" > /tmp/kafka-bin/$1
  chmod +x /tmp/kafka-bin/$1
}
command -v kafka-topics.sh > /dev/null || {
  shim kafka-topics.sh org.apache.kafka.tools.TopicCommand
  shim kafka-configs.sh kafka.admin.ConfigCommand
  shim kafka-consumer-groups.sh org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
}
BOOTSTRAP=localhost:9094
"""
"""The commands that the official image has, where an image has only Kafka's classes."""


def test_what_is_exported_makes_what_is_planned(connect: Connect, url: str, name: str, inside: Inside) -> None:
    topology = Topology(Queue(name), Topic(f"{name}-t", "g", native={"kafka": {"partitions": 2, "retention": 3600}}))
    with messaging.connect(url) as broker:
        driver = broker._driver
        script = driver.export(broker.plan(topology), "kafka")
        inside(url, SCRIPTS + script)
        assert [finding for finding in broker.inspect(topology) if finding.state != "there"] == []
        inside(url, SCRIPTS + script)
    connect(*topology)  # is content with it, and deletes it afterwards


@pytest.mark.parametrize("kept", [{"retention": 3600}, {"config": {"retention.ms": "3600000"}}])
def test_a_retry_after_what_is_kept_is_refused(kept: dict[str, Any]) -> None:
    driver = KafkaDriver(KafkaOptions())
    driver.assume("4.2")
    topology = Topology(Queue("q", native={"kafka": kept}), Topic("t", "g", native={"kafka": kept}))
    assert driver.plan(topology, [1.0, 3600.0])
    with pytest.raises(UnsupportedCapability, match="keeps a message for 3600 s"):
        driver.plan(topology, [1.0, 3601.0])
    compacted = Topic("c", "g", native={"kafka": {"config": {"retention.ms": "3600000", "cleanup.policy": "compact"}}})
    waits_elsewhere = Queue("w", ordered=False, native={"kafka": {**kept, "retry_topics": [600]}})
    below = KafkaDriver(KafkaOptions())
    below.assume("4.1")
    assert below.plan(Topology(compacted, waits_elsewhere), [1.0, 7200.0])
