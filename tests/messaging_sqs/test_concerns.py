"""What the attributes of queues do not uphold is told, each with how to change it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest

from messaging import Broker
from messaging.concerns import Concern
from messaging.topology import Queue
from messaging_contract.harness import Harness


@pytest.fixture
def broker(sqs: Harness) -> Iterator[Broker]:
    with sqs.connect() as broker:
        yield broker


@pytest.fixture
def made(broker: Broker) -> Iterator[Callable[[Mapping[str, str]], str]]:
    """Makes a queue with these attributes as an operator would, and returns its name."""
    client: Any = broker.native
    names: list[str] = []

    def make(attributes: Mapping[str, str]) -> str:
        name = f"mc-{uuid4().hex[:12]}"
        names.append(name)
        client.create_queue(QueueName=name, Attributes=dict(attributes))
        return name

    yield make
    for name in names:
        client.delete_queue(QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"])


def told(concerns: list[Concern], setting: str) -> Concern:
    found = [concern for concern in concerns if concern.setting == setting]
    assert len(found) == 1, [str(concern) for concern in concerns]
    assert found[0].seen
    assert found[0].why
    assert found[0].change
    return found[0]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("VisibilityTimeout", "2"),
        ("MessageRetentionPeriod", "600"),
        ("MaximumMessageSize", "4096"),
        ("DelaySeconds", "30"),
    ],
)
def test_an_attribute(
    broker: Broker, made: Callable[[Mapping[str, str]], str], sqs: Harness, setting: str, value: str
) -> None:
    if sqs.name == "sqs:elasticmq" and setting in ("MessageRetentionPeriod", "MaximumMessageSize"):
        pytest.skip("ElasticMQ forgets it")
    name = made({setting: value})
    concern = told(broker.concerns(Queue(name)), setting)
    assert concern.found.startswith(f"{value} ")
    assert name in concern.about


def test_retention_shorter_than_a_retry(broker: Broker, made: Callable[[Mapping[str, str]], str], sqs: Harness) -> None:
    if sqs.name == "sqs:elasticmq":
        pytest.skip("ElasticMQ forgets it")
    name = made({"MessageRetentionPeriod": "100000"})
    assert not [c for c in broker.concerns(Queue(name), delays=[60]) if c.setting == "MessageRetentionPeriod"]
    concerns = broker.concerns(Queue(name), delays=[200_000])
    assert "waits for a retry" in told(concerns, "MessageRetentionPeriod").why
    assert "43200 s at most" in told(concerns, "retry delay").why


def test_redrive_before_the_attempts_are_over(broker: Broker, made: Callable[[Mapping[str, str]], str]) -> None:
    client: Any = broker.native
    target = made({})
    url = client.get_queue_url(QueueName=target)["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    name = made({"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})})
    concern = told([c for c in broker.concerns(Queue(name)) if "maxReceiveCount" in c.found], "RedrivePolicy")
    assert concern.found == "maxReceiveCount is 3"


def test_dead_letters_that_are_kept_for_less_long(
    broker: Broker, made: Callable[[Mapping[str, str]], str], sqs: Harness
) -> None:
    if sqs.name == "sqs:elasticmq":
        pytest.skip("ElasticMQ forgets the retention")
    client: Any = broker.native
    target = made({"MessageRetentionPeriod": "90000"})
    url = client.get_queue_url(QueueName=target)["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1000})
    name = made({"RedrivePolicy": policy, "MessageRetentionPeriod": "1209600"})
    assert "dead letters are kept 90000 s" in told(broker.concerns(Queue(name)), "RedrivePolicy").found


def test_what_this_library_makes_is_no_concern_beyond_the_size(broker: Broker, sqs: Harness) -> None:
    queue = Queue(f"mc-{uuid4().hex[:12]}")
    broker.declare(queue)
    try:
        found = {c.setting for c in broker.concerns(queue) if c.seen}
    finally:
        broker.delete(queue)
    assert found <= {"MaximumMessageSize", "SqsManagedSseEnabled"}


def test_without_sns_topics_are_told_as_refused(broker: Broker, sqs: Harness) -> None:
    told_so = [c for c in broker.concerns(Queue("mc-absent")) if c.about == "SNS"]
    assert bool(told_so) == (not broker.capabilities.topics)


def test_the_version_is_what_the_server_says(broker: Broker) -> None:
    assert broker.version.startswith("SQS")
