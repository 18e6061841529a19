"""The adapter's own options, and what pika makes of them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import pika

from messaging.errors import ConfigurationError


@dataclass(frozen=True)
class RabbitMQOptions:
    """hosts: tried in turn; port 5672, or 5671 with tls. path: the virtual host; "" is the default one, "/".

    tls: verify the broker against the system's certificates, or those in the file that SSL_CERT_FILE names.
    heartbeat: seconds after which a silent connection counts as lost. connect_timeout: seconds until an unreachable
    broker is an error; each of several hosts gets its share. reconnect_min, reconnect_max: seconds between attempts
    to regain a lost connection, doubled each time. management: the URL of the management plugin, for `concerns` alone;
    unless told, port 15672 of the first host, or 15671 with tls. consumer_timeout: seconds that the broker is
    configured to leave a message unacknowledged; it does not tell. Retries of ordered sources that take longer are
    refused.
    """

    hosts: tuple[tuple[str, int | None], ...] = (("localhost", None),)
    username: str | None = "guest"
    password: str | None = field(default="guest", repr=False)
    path: str = "/"
    tls: bool = False
    heartbeat: int = 30
    connect_timeout: float = 10.0
    reconnect_min: float = 0.1
    reconnect_max: float = 5.0
    management: str | None = None
    consumer_timeout: float = 1800.0

    def __post_init__(self) -> None:
        if self.heartbeat < 1:
            raise ConfigurationError(f"heartbeat must be at least 1 second, not {self.heartbeat!r}")
        if self.connect_timeout <= 0:
            raise ConfigurationError(f"connect_timeout must be a positive number, not {self.connect_timeout!r}")
        if not self.consumer_timeout > 0:
            raise ConfigurationError(f"consumer_timeout must be a positive number, not {self.consumer_timeout!r}")
        if not 0 < self.reconnect_min <= self.reconnect_max:
            raise ConfigurationError("reconnect_min must be positive and at most reconnect_max")
        if self.management is not None and not self.management.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"management must be a URL such as http://localhost:15672, not {self.management!r}"
            )

    @property
    def vhost(self) -> str:
        """The virtual host `path` names."""
        return self.path or "/"

    def addresses(self) -> list[tuple[str, int]]:
        """The hosts with their ports."""
        port = 5671 if self.tls else 5672
        return [(host, port if given is None else given) for host, given in self.hosts or (("localhost", None),)]

    def parameters(self, host: str, port: int) -> pika.ConnectionParameters:
        """What pika needs to connect to one host."""
        timeout = self.connect_timeout / max(len(self.hosts), 1)
        return pika.ConnectionParameters(
            host=host,
            port=port,
            virtual_host=self.vhost,
            credentials=pika.PlainCredentials(self.username or "guest", self.password or "guest"),
            heartbeat=self.heartbeat,
            ssl_options=pika.SSLOptions(ssl.create_default_context(), host) if self.tls else None,
            socket_timeout=timeout,
            stack_timeout=timeout,
            connection_attempts=1,
            client_properties={"product": "anybroker"},
        )
