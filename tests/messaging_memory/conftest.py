from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import messaging
from messaging import Broker
from messaging_memory import ManualClock, MemoryServer

Open = Callable[..., Broker]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> MemoryServer:
    return MemoryServer(clock)


@pytest.fixture
def open_broker(server: MemoryServer) -> Iterator[Open]:
    """Connects to `server`; closed at the end."""
    opened: list[Broker] = []

    def connect(*topology: Any, **options: Any) -> Broker:
        broker = messaging.connect("memory://", topology=topology, **{"server": server, **options})
        opened.append(broker)
        return broker

    yield connect
    for broker in opened:
        broker.close()
