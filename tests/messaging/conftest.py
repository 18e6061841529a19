from __future__ import annotations

from collections.abc import Iterator

import pytest

import messaging
from messaging import Broker, Queue, Topic
from messaging_memory import ManualClock, MemoryServer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> MemoryServer:
    return MemoryServer(clock)


@pytest.fixture
def broker(server: MemoryServer) -> Iterator[Broker]:
    """On a clock that stands still: queue `jobs`, ordered queue `lane`, topic `orders` with group `inventory`."""
    topology = [Queue("jobs"), Queue("lane", ordered=True), Topic("orders", "inventory")]
    with messaging.connect("memory://", server=server, topology=topology) as broker:
        yield broker
