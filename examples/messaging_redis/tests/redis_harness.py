"""Redis in a container, as the contract suite takes it: `--broker redis_harness:container`."""

from __future__ import annotations

import os
from typing import ClassVar

import redis

from messaging.topology import Source
from messaging_contract.brokers import Unavailable
from messaging_contract.containers import BrokerNotReady, ContainersUnavailable
from messaging_contract.containers.base import BrokerContainer
from messaging_contract.faults import ProxyLink
from messaging_contract.harness import Harness, connect_to

IMAGE = "MESSAGING_IMAGE_REDIS"


class RedisContainer(BrokerContainer):
    """One Redis server that writes everything to its append-only file."""

    port_inside: ClassVar[int] = 6379

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        try:
            with redis.Redis("127.0.0.1", self.port, socket_timeout=2, socket_connect_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def container() -> Harness:
    """A container, with every control that Redis can have. Raises Unavailable."""
    container = RedisContainer("redis", os.environ.get(IMAGE, "redis:7"), IMAGE)
    try:
        container.start()
    except (ContainersUnavailable, BrokerNotReady) as error:
        raise Unavailable(str(error)) from error
    url = container.url

    def foreign(source: Source, body: bytes, headers: dict[str, str]) -> None:
        root = source.name.partition("--")[0]
        with redis.Redis("127.0.0.1", container.port) as client:
            client.xadd(f"anybroker:{{{root}}}:{source.name}", {"body": body, **headers})

    harness = Harness("redis", connect_to(url), url=url, remote=url, quiet=0.5, pace=0.5, foreign=foreign)
    harness.link = lambda: ProxyLink(("127.0.0.1", container.port), lambda port: f"redis://127.0.0.1:{port}/0")
    harness.at = lambda host, port: f"redis://{host}:{port}/0"
    harness.wrong_credentials = f"redis://nobody:wrong@127.0.0.1:{container.port}/0"
    harness.restart = container.restart
    harness.pause, harness.unpause = container.pause, container.unpause
    harness.closing.append(container.stop)
    return harness
