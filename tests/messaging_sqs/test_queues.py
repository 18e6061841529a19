"""Queues that are declared again, or wrongly."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import messaging
from messaging import Queue
from messaging.broker import Broker
from messaging.errors import ConfigurationError, DestinationNotFound, TopologyError

Connect = Callable[..., Broker]


def test_queues_declared_differently(connect: Connect, name: str, url: str) -> None:
    connect(Queue(name, native={"sqs": {"visibility": 60}}))
    with messaging.connect(url, topology=Queue(name, native={"sqs": {"visibility": 60}})):
        pass
    for other in (
        Queue(name, ordered=True),
        Queue(name, dead_letter=False),
        Queue(name, native={"sqs": {"visibility": 61}}),
        Queue(name, native={"sqs": {"max_receives": 3}}),
    ):
        with pytest.raises(TopologyError, match="delete it first"):
            messaging.connect(url, topology=other)
    with pytest.raises(DestinationNotFound, match=f"'no{name}'"):
        messaging.connect(url, topology=Queue("no" + name), create=False)
    for wrong in ({"partitions": 3}, {"retention": "long"}):
        with pytest.raises(ConfigurationError, match="native option"):
            messaging.connect(url, topology=Queue("no" + name, native={"sqs": wrong}))


@pytest.mark.only("sqs:ministack")  # ElasticMQ knows no keys
def test_the_dead_letter_queue_has_the_key_of_its_queue(connect: Connect, name: str) -> None:
    client = connect(Queue(name, native={"sqs": {"kms_key": "alias/orders"}})).native
    for queue in (name, f"{name}--dlq"):
        url = client.get_queue_url(QueueName=queue)["QueueUrl"]
        attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["KmsMasterKeyId"])["Attributes"]
        assert attributes["KmsMasterKeyId"] == "alias/orders"
