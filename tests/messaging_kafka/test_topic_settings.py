from __future__ import annotations

from typing import Any

import pytest

from messaging import Queue, Subscription, Topic
from messaging.errors import ConfigurationError
from messaging_kafka.topic_settings import TopicSettings, check_subscription


def test_nothing_said() -> None:
    assert TopicSettings.of(Queue("q", native={"rabbitmq": {"type": "classic"}})) == TopicSettings(
        config={"cleanup.policy": "delete"}
    )


def test_everything_said() -> None:
    native = {
        "partitions": 12,
        "replication_factor": 3,
        "retention": 1.5,
        "compact": True,
        "config": {"segment.ms": "1000", "cleanup.policy": "compact"},
    }
    assert TopicSettings.of(Topic("t", native={"kafka": native})) == TopicSettings(
        12, 3, {"segment.ms": "1000", "cleanup.policy": "compact", "retention.ms": "1500"}
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"partition": 3}, "partitions"),
        ({"whatever": 3}, "known"),
        ({"partitions": 0}, "partitions"),
        ({"partitions": True}, "partitions"),
        ({"partitions": "3"}, "partitions"),
        ({"replication_factor": 1.5}, "replication_factor"),
        ({"retention": 0}, "retention"),
        ({"retention": "1h"}, "retention"),
        ({"retention": True}, "retention"),
        ({"retention": float("nan")}, "retention"),
        ({"compact": "yes"}, "compact"),
        ({"config": {"retention.ms": 5}}, "config"),
        ({"config": "retention.ms=5"}, "config"),
        ({"retention": 5, "config": {"retention.ms": "6"}}, r"retention\.ms"),
        ({"compact": False, "config": {"cleanup.policy": "compact"}}, r"cleanup\.policy"),
    ],
    ids=str,
)
def test_wrong_settings(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        TopicSettings.of(Topic("t", native={"kafka": wrong}))


@pytest.mark.parametrize("native", [{"compact": True}, {"config": {"cleanup.policy": "compact,delete"}}])
def test_a_queue_is_never_compacted(native: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="lose"):
        TopicSettings.of(Queue("q", native={"kafka": native}))


def test_a_subscription_has_retry_topics_only() -> None:
    check_subscription(Subscription("g", native={"sqs": {"visibility": 5}, "kafka": {"retry_topics": [5]}}))
    with pytest.raises(ConfigurationError, match="there is only 'retry_topics'"):
        check_subscription(Subscription("g", native={"kafka": {"partitions": 5}}))
