"""What the settings of a cluster and its topics do not uphold is told, each with how to change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from confluent_kafka.admin import ResourceType

import messaging
from messaging.concerns import Concern
from messaging.topology import Queue, Topic
from messaging_contract.harness import Harness
from messaging_kafka.concerns import _kept_safe
from messaging_kafka.server_version import metadata_version, release

from .cluster import Cluster

BROKER = "1"


@pytest.fixture
def look(url: str, name: str) -> Iterator[Callable[..., list[Concern]]]:
    """The concerns about a topic with these settings."""
    with messaging.connect(url) as broker:

        def look(config: Mapping[str, str] | None = None, delays: tuple[float, ...] = ()) -> list[Concern]:
            topic = Topic(name, "g", native={"kafka": {"partitions": 1, "config": dict(config or {})}})
            broker.declare(topic)
            try:
                return broker.concerns(delays=delays)
            finally:
                broker.delete(topic)

        yield look


def told(concerns: list[Concern], setting: str) -> Concern:
    found = [concern for concern in concerns if concern.setting == setting]
    assert len(found) == 1, [str(concern) for concern in concerns]
    assert found[0].seen
    assert found[0].why
    assert found[0].change
    return found[0]


def test_a_cluster_as_it_comes(look: Callable[..., list[Concern]], name: str) -> None:
    concerns = look()
    assert {c.setting for c in concerns} == {"auto.create.topics.enable", "replication factor"}
    assert told(concerns, "replication factor").found == "1 (and min.insync.replicas 1)"
    assert told(concerns, "replication factor").about == f"topic {name!r} and 1 more"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max.message.bytes", "20000"),
        ("unclean.leader.election.enable", "true"),
        ("retention.bytes", "1000000"),
        ("min.insync.replicas", "2"),
        ("cleanup.policy", "compact"),
    ],
)
def test_a_topics_own(look: Callable[..., list[Concern]], name: str, setting: str, value: str) -> None:
    concern = told(look({setting: value}), setting)
    assert value in concern.found
    assert f"--entity-name {name} --add-config {setting}=" in concern.change


def test_retention_shorter_than_a_retry(look: Callable[..., list[Concern]]) -> None:
    short = {"retention.ms": "600000"}
    assert "10 minutes" in told(look(short, delays=(3600.0,)), "retention.ms").found
    assert not [c for c in look(short, delays=(60.0,)) if c.setting == "retention.ms"]


def test_the_clusters_own(look: Callable[..., list[Concern]], url: str) -> None:
    cluster = Cluster(url)
    cluster.configure(BROKER, ResourceType.BROKER, message_max_bytes="50000")
    try:
        assert told(look(), "max.message.bytes").found == "50000 bytes"
    finally:
        cluster.configure(BROKER, ResourceType.BROKER, message_max_bytes="1048588")


def test_of_several_replicas_one_is_enough_to_confirm() -> None:
    """As a cluster of three has it by default; there is one node here."""
    [concern] = _kept_safe("topic 'orders'", 3, {"min.insync.replicas": "1"})
    assert concern.setting == "min.insync.replicas"
    assert "--entity-name orders --add-config min.insync.replicas=2" in concern.change
    assert list(_kept_safe("topic 'orders'", 3, {"min.insync.replicas": "2"})) == []


def test_a_topic_that_is_not_there_is_no_concern(url: str, name: str) -> None:
    with messaging.connect(url) as broker:
        assert {c.about for c in broker.concerns(Queue(name))} == {"the cluster"}


def test_the_version_is_the_brokers_own_word(kafka: Harness, url: str) -> None:
    with messaging.connect(url) as broker:
        assert broker.version == kafka.name.replace("kafka:", "Kafka ")


def test_a_version_that_nobody_tells_is_empty() -> None:
    assert metadata_version("127.0.0.1", 1, False, 1.0) is None
    assert release(None) == ""
