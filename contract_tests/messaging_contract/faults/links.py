"""Breakable connections: a proxy in front of a running broker, or in front of everything a container advertises."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from messaging_contract.faults.proxy import HOST, TcpProxy
from messaging_contract.harness import connect_to

if TYPE_CHECKING:
    from messaging_contract.containers.base import BrokerContainer


class ProxyLink:
    """A `Link` through a proxy of its own."""

    def __init__(self, upstream: tuple[str, int], url_at: Callable[[int], str]) -> None:
        self._proxy = TcpProxy(upstream)
        self.connect = connect_to(url_at(self._proxy.port))
        self.cut = self._proxy.cut
        self.blackhole = self._proxy.blackhole
        self.delay = self._proxy.delay
        self.throttle = self._proxy.throttle
        self.resume = self._proxy.resume
        self.close = self._proxy.close


class ProxiedBroker:
    """A container whose advertised address is a proxy's, for brokers (Kafka) that tell clients where to go.

    Every connection goes through the one proxy, so what a `link` does happens to all of them.
    """

    def __init__(self, container: BrokerContainer) -> None:
        self._proxy = TcpProxy()
        self._container = container
        environment = container.environment

        def through_proxy() -> dict[str, str]:
            self._proxy.upstream = (HOST, container.port)
            direct = f"{HOST}:{container.port}"
            return {name: value.replace(direct, f"{HOST}:{self._proxy.port}") for name, value in environment().items()}

        container.environment = through_proxy  # type: ignore[method-assign]

    @property
    def url(self) -> str:
        return f"{urlsplit(self._container.url).scheme}://{HOST}:{self._proxy.port}"

    def link(self) -> SharedLink:
        return SharedLink(self._proxy, self.url)

    def close(self) -> None:
        self._proxy.close()


class SharedLink:
    """A `Link` through the one proxy of a `ProxiedBroker`."""

    def __init__(self, proxy: TcpProxy, url: str) -> None:
        self.connect = connect_to(url)
        self.cut = proxy.cut
        self.blackhole = proxy.blackhole
        self.delay = proxy.delay
        self.throttle = proxy.throttle
        self.resume = proxy.resume

    def close(self) -> None:
        """The proxy stays; it is the harness's."""
