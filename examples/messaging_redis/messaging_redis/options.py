"""What the Redis adapter can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from messaging.errors import ConfigurationError


@dataclass(frozen=True)
class RedisOptions:
    """Options of `redis://user:password@host:6379/0`; the path is the number of the database.

    connect_timeout: seconds for a connection, and for each answer. lease: seconds after which an unsettled message is
    given to somebody else, unless the consumer has its own. prefix: begins every key. tls: encrypted.
    """

    hosts: tuple[tuple[str, int | None], ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str = ""
    tls: bool = False
    connect_timeout: float = 5.0
    lease: float = 30.0
    prefix: str = "anybroker"

    def __post_init__(self) -> None:
        _check(len(self.hosts) <= 1, "give one host: Sentinel and Cluster are not supported", self.hosts)
        _check(not self.path or self.path.isdecimal(), "the path is the number of a database, as in /0", self.path)
        _check(
            0 < self.connect_timeout < 1e6, "connect_timeout must be a positive number of seconds", self.connect_timeout
        )
        _check(0 < self.lease <= 1e9, "lease must be a positive number of seconds", self.lease)
        _check(
            self.prefix != "" and not set(self.prefix) & set("{}"), "prefix must be text without braces", self.prefix
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.hosts[0] if self.hosts else ("localhost", None)
        return host, port or 6379


def _check(valid: bool, text: str, value: object) -> None:
    if not valid:
        raise ConfigurationError(f"redis: {text}, not {value!r}")
