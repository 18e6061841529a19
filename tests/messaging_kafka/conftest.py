"""Tests against real Kafkas, see tests/brokers.py."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

import messaging
from messaging import Broker
from messaging.topology import Destination
from messaging_contract.harness import Harness

from .cluster import Cluster, uses_share_groups


@pytest.fixture
def url(kafka: Harness) -> str:
    assert kafka.url is not None
    return kafka.url


@pytest.fixture
def cluster(url: str) -> Cluster:
    return Cluster(url)


@pytest.fixture
def name() -> str:
    return "test-" + uuid.uuid4().hex[:12]


@pytest.fixture
def connect(url: str) -> Iterator[Callable[..., Broker]]:
    """Connects with a topology; what was declared is deleted afterwards."""
    made: list[Broker] = []

    def make(*destinations: Destination, target: str = url, **options: object) -> Broker:
        broker = messaging.connect(target, topology=list(destinations), **options)
        made.append(broker)
        return broker

    yield make
    for broker in reversed(made):
        broker.close()
    declared = [broker.topology for broker in made if len(broker.topology)]
    if declared:
        with messaging.connect(url) as cleaner:
            for topology in declared:
                cleaner.delete(topology)


@pytest.fixture
def shares(connect: Callable[..., Broker]) -> Callable[..., Broker]:
    """Connects to a Kafka that has share groups."""
    if not uses_share_groups(connect()):
        pytest.skip("this Kafka has no share groups")
    return connect
