"""Tests against SQS endpoints, see tests/brokers.py."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator

import pytest

import messaging
from messaging.broker import Broker
from messaging.topology import Destination
from messaging_contract.gate import Gate
from messaging_contract.harness import Harness


@pytest.fixture
def url(sqs: Harness) -> str:
    assert sqs.url is not None
    return sqs.url


@pytest.fixture
def gate(url: str) -> Iterator[Gate]:
    match = re.match(r"sqs://(?:[^@/]*@)?([^:/?,]+):(\d+)", url)
    if match is None:
        pytest.skip("needs an endpoint with host and port")
    gate = Gate(match[1], int(match[2]))
    yield gate
    gate.close()


@pytest.fixture
def gated(url: str, gate: Gate) -> str:
    """The URL that goes through `gate`."""
    return re.sub(r"[^@/:]+:\d+", f"127.0.0.1:{gate.port}", url, count=1)


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
