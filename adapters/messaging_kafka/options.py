"""The adapter's own options, and the librdkafka configuration made from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from messaging.errors import ConfigurationError

PORT = 9092

log = logging.getLogger("messaging_kafka.librdkafka")
"""Where the client library's own log lines go; never to stderr."""
log.addHandler(logging.NullHandler())  # else Python prints them there when the program configures no logging

_GUARDED = frozenset(
    {
        *("bootstrap.servers", "metadata.broker.list", "client.id", "security.protocol"),
        *("sasl.username", "sasl.password", "sasl.mechanism", "sasl.mechanisms"),
        *("acks", "request.required.acks", "enable.idempotence", "partitioner", "transactional.id"),
        *("transaction.timeout.ms", "isolation.level"),
        *("max.in.flight", "max.in.flight.requests.per.connection", "retries", "message.send.max.retries"),
        *("message.timeout.ms", "delivery.timeout.ms", "allow.auto.create.topics", "delivery.report.only.error"),
        *("group.id", "group.protocol", "group.instance.id", "partition.assignment.strategy", "enable.partition.eof"),
        *("enable.auto.commit", "auto.commit.enable", "enable.auto.offset.store", "auto.offset.reset"),
        *("share.acknowledgement.mode", "max.poll.records"),
        *("logger", "error_cb", "stats_cb", "statistics.interval.ms", "throttle_cb", "on_commit", "on_delivery"),
    }
)


@dataclass(frozen=True)
class KafkaOptions:
    """How to reach the cluster and what to use of it.

    hosts: bootstrap servers. username, password: SASL; `sasl_mechanism` is PLAIN unless told. connect_timeout: seconds.

    group_protocol: "consumer" is KIP-848, "classic" the older one with cooperative-sticky assignment. "auto" takes
    "consumer" where the cluster lets a crashed member be replaced within ten seconds, else "classic": by default a
    broker keeps a crashed KIP-848 member for 45 seconds (`group.consumer.min.session.timeout.ms`).

    queues: "share" reads queues through share groups (KIP-932, Kafka >= 4.2), "group" through a consumer group,
    "auto" through what the cluster has.

    transaction_timeout: seconds from the first message of a transaction (`delivery="exactly-once"`) to its end; then
    the broker takes it back. A crash keeps the group's positions from others as long, so it should be little above what
    the slowest transaction needs.

    config: further librdkafka properties, merged last; those that the guarantees rest on are refused.
    """

    hosts: tuple[tuple[str, int | None], ...] = (("localhost", PORT),)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    connect_timeout: float = 10.0
    client_id: str = "anybroker"
    group_protocol: Literal["auto", "classic", "consumer"] = "auto"
    queues: Literal["auto", "share", "group"] = "auto"
    transaction_timeout: float = 30.0
    config: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ConfigurationError("kafka: hosts must name at least one bootstrap server")
        if not 1 <= self.transaction_timeout <= 900:
            raise ConfigurationError(
                f"kafka: transaction_timeout must be from 1 to 900 seconds, not {self.transaction_timeout!r}"
            )
        if not self.connect_timeout > 0:
            raise ConfigurationError(f"kafka: connect_timeout must be positive, not {self.connect_timeout!r}")
        for name, value, allowed in (
            ("group_protocol", self.group_protocol, ("auto", "classic", "consumer")),
            ("queues", self.queues, ("auto", "share", "group")),
            ("security_protocol", self.security_protocol, (None, "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")),
            ("sasl_mechanism", self.sasl_mechanism, ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
        ):
            if value not in allowed:
                raise ConfigurationError(f"kafka: {name} must be one of {allowed}, not {value!r}")
        if not isinstance(self.config, Mapping):
            raise ConfigurationError("kafka: config is a table: give it in a profile or as a keyword, not in the URL")
        for key in self.config:
            if key in _GUARDED:
                raise ConfigurationError(
                    f"kafka: {key!r} cannot be set through config: the adapter's guarantees rest on it, "
                    "or it is another option"
                )
        if (self.username is None) != (self.password is None):
            raise ConfigurationError("kafka: username and password belong together")
        sasl = (self.security_protocol or "").startswith("SASL_")
        if self.security_protocol is not None and sasl != (self.username is not None):
            raise ConfigurationError(
                f"kafka: security_protocol={self.security_protocol} needs username and password"
                if sasl
                else f"kafka: with security_protocol={self.security_protocol} username and password are not used: "
                "leave them out, or say SASL_SSL or SASL_PLAINTEXT"
            )

    @property
    def bootstrap(self) -> str:
        """`host:port,host:port`; IPv6 addresses in brackets."""
        return ",".join(f"[{h}]:{p or PORT}" if ":" in h else f"{h}:{p or PORT}" for h, p in self.hosts)

    def client(self, **properties: Any) -> dict[str, Any]:
        """The configuration of one client; underscores in `properties` stand for dots."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "client.id": self.client_id,
            "logger": log,
            # A broker that is back should be found within a second, not after librdkafka's ten.
            "reconnect.backoff.max.ms": 1000,
            # Grown partitions are seen within ten seconds instead of five minutes.
            "topic.metadata.refresh.interval.ms": 10_000,
            "socket.keepalive.enable": True,
        }
        protocol = self.security_protocol or ("SASL_PLAINTEXT" if self.username is not None else "PLAINTEXT")
        config["security.protocol"] = protocol
        if self.username is not None:
            config |= {"sasl.mechanism": self.sasl_mechanism, "sasl.username": self.username}
            config["sasl.password"] = self.password
        config |= {k if k.endswith("_cb") else k.replace("_", "."): value for k, value in properties.items()}
        return config | dict(self.config)
