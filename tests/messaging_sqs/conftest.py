"""A broker under test: any SQS endpoint, given as MESSAGING_TEST_SQS=sqs://...; without it these tests are skipped."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

import messaging
from messaging.broker import Broker
from messaging.topology import Destination

URL = "MESSAGING_TEST_SQS"


@pytest.fixture
def url() -> str:
    value = os.environ.get(URL)
    if not value:
        pytest.skip(f"needs an SQS endpoint: set {URL}=sqs://host:port?region=..&access_key=..&secret_key=..")
    return value


@pytest.fixture
def name() -> str:
    return "t" + uuid.uuid4().hex[:12]


@pytest.fixture
def connect(url: str) -> Iterator[Callable[..., Broker]]:
    """Connects with a topology; what was declared is deleted afterwards."""
    open_brokers: list[Broker] = []

    def make(*destinations: Destination, target: str = url, **options: object) -> Broker:
        broker = messaging.connect(target, topology=list(destinations), **options)
        open_brokers.append(broker)
        return broker

    yield make
    for broker in open_brokers:
        broker.close()
    declared = [broker.topology for broker in open_brokers if len(broker.topology)]
    if declared:
        with messaging.connect(url) as cleaner:
            for topology in declared:
                cleaner.delete(topology)
