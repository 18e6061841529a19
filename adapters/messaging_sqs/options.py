"""What the SQS adapter can be told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from messaging.errors import ConfigurationError

MAX_VISIBILITY = 43200
"""Seconds a message can stay invisible, in all, from its receipt (SQS quotas: 12 hours)."""

MAX_DELAY = 900
"""Seconds of DelaySeconds (SQS quotas: 15 minutes)."""

SQS_MESSAGE_BYTES = 1048576
"""Largest message, and largest batch in total (SQS quotas, 1 MiB since August 2025)."""

SNS_MESSAGE_BYTES = 262144
"""Largest message and batch of SNS (SNS quotas, 256 KiB)."""


@dataclass(frozen=True)
class SQSOptions:
    """Options of `sqs://`. Without a host it is AWS itself, with boto3's own chain of credentials and regions.

    hosts: an emulator, `sqs://localhost:4566`; the first of several that answers is used. tls: https to it.
    endpoint_url: a full URL instead of hosts. sns_endpoint_url: where SNS is, when it is not there too.
    username, password: the same as access_key, secret_key. profile: of the AWS configuration files.
    connect_timeout, read_timeout: seconds for one connection and one answer. wait_time: whole seconds of a long poll;
    an idle consumer asks, and pays, once in so long for each of its receivers, and may take so long to close.
    receivers: threads that receive (one when ordered), and as many that settle, for each consumer.
    senders: threads a producer. visibility: whole seconds of a lease, unless the consumer has its own.
    queue_prefix: put before every queue and topic name.
    max_message_bytes: lower it for queues, or emulators, that take less than AWS's 1 MiB.
    """

    hosts: tuple[tuple[str, int | None], ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    endpoint_url: str | None = None
    sns_endpoint_url: str | None = None
    tls: bool = False
    connect_timeout: float = 5.0
    read_timeout: float = 10.0
    wait_time: int = 1
    receivers: int = 2
    senders: int = 4
    visibility: int = 30
    queue_prefix: str = ""
    max_message_bytes: int = SQS_MESSAGE_BYTES

    def __post_init__(self) -> None:
        _check(self.connect_timeout > 0, "connect_timeout must be a positive number of seconds", self.connect_timeout)
        _check(self.read_timeout > 0, "read_timeout must be a positive number of seconds", self.read_timeout)
        _check(0 <= self.wait_time <= 20, "wait_time must be 0 to 20 seconds", self.wait_time)
        _check(self.receivers >= 1, "receivers must be at least 1", self.receivers)
        _check(self.senders >= 1, "senders must be at least 1", self.senders)
        _check(1 <= self.visibility <= MAX_VISIBILITY, "visibility must be 1 to 43200 seconds", self.visibility)
        _check(
            1024 <= self.max_message_bytes <= SQS_MESSAGE_BYTES,
            "max_message_bytes must be 1024 to 1048576",
            self.max_message_bytes,
        )
        for name in ("endpoint_url", "sns_endpoint_url"):
            _check_url(name, getattr(self, name))
        _check(not (self.hosts and self.endpoint_url), "give a host or endpoint_url, not both", self.endpoint_url)
        _check(not self.tls or bool(self.hosts), "tls is for a host in the URL; AWS has it, endpoint_url says it", True)
        _check(
            re.fullmatch(r"[A-Za-z0-9_-]*", self.queue_prefix) is not None,
            "queue_prefix must be letters, digits, '-' and '_' (SQS takes no others)",
            self.queue_prefix,
        )
        for one, other in (("access_key", "username"), ("secret_key", "password")):
            if getattr(self, one) and getattr(self, other):
                raise ConfigurationError(f"sqs: {one} and the {other} of the URL mean the same: give one of them")
        if (self.key_id is None) != (self.secret is None):
            raise ConfigurationError("sqs: access_key and secret_key belong together: give both or none")
        if self.session_token is not None and self.secret is None:
            raise ConfigurationError("sqs: session_token belongs to an access_key and secret_key: give all three")

    @property
    def key_id(self) -> str | None:
        """The access key id, or None for boto3's own chain."""
        return self.access_key or self.username

    @property
    def secret(self) -> str | None:
        """The secret access key, or None."""
        return self.secret_key or self.password

    @property
    def endpoints(self) -> list[str | None]:
        """The endpoints to try, in order; `[None]` is AWS itself."""
        if not self.hosts:
            return [self.endpoint_url]
        scheme = "https" if self.tls else "http"
        return [
            f"{scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
            for host, port in self.hosts
        ]


def _check_url(name: str, url: str | None) -> None:
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        # Not shown: it may hold a password.
        raise ConfigurationError(
            f"sqs: {name} must be http://host:port or https://host, without user and password (give access_key and "
            f"secret_key)"
        )


def _check(valid: bool, text: str, value: object) -> None:
    if not valid:
        raise ConfigurationError(f"sqs: {text}, not {value!r}")
