"""Tests against real RabbitMQs, see tests/brokers.py."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

import messaging
from messaging.topology import Queue, Topology
from messaging_contract.faults import TcpProxy
from messaging_contract.harness import Harness
from messaging_rabbitmq import RabbitMQDriver, RabbitMQOptions


@pytest.fixture
def url(rabbitmq: Harness) -> str:
    assert rabbitmq.url is not None
    return rabbitmq.url


@pytest.fixture
def options(url: str) -> RabbitMQOptions:
    parts = urlsplit(url)
    return RabbitMQOptions(
        hosts=((parts.hostname or "localhost", parts.port),),
        username=parts.username or "guest",
        password=parts.password or "guest",
        path=parts.path,
        reconnect_min=0.05,
        reconnect_max=0.3,
    )


@pytest.fixture
def driver(options: RabbitMQOptions) -> Iterator[RabbitMQDriver]:
    driver = RabbitMQDriver(options)
    driver.open()
    yield driver
    driver.close()


@pytest.fixture
def broker(url: str) -> Iterator[messaging.Broker]:
    with messaging.connect(url) as broker:
        yield broker


@pytest.fixture
def name() -> str:
    return "test-" + uuid.uuid4().hex[:12]


@pytest.fixture
def declared(driver: RabbitMQDriver) -> Iterator[Callable[[Topology], Topology]]:
    """Declares a topology and deletes it afterwards."""
    made: list[Topology] = []

    def declare(topology: Topology) -> Topology:
        made.append(topology)
        driver.declare(topology, True)
        return topology

    yield declare
    for topology in made:
        driver.delete(topology)


@pytest.fixture
def queue(declared: Callable[[Topology], Topology], name: str) -> Queue:
    queue = Queue(name)
    declared(Topology(queue))
    return queue


@pytest.fixture
def proxy(options: RabbitMQOptions) -> Iterator[TcpProxy]:
    host, port = options.hosts[0]
    proxy = TcpProxy((host, port or 5672))
    yield proxy
    proxy.close()
