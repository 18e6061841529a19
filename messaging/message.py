"""The message: what is published and what arrives, the same on every broker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Any, TypedDict

from messaging.codec import encode
from messaging.errors import InvalidMessage

_SHORT = 255
"""AMQP short strings hold 255 bytes: the portable limit of everything that is a property there."""

_LATEST = 1e11
"""The year 5138."""


class MessageFields(TypedDict, total=False):
    """What `publish` takes beside the value. Times are seconds; `timestamp` is seconds since the epoch, UTC."""

    key: str | None
    type: str
    headers: Mapping[str, str]
    id: str
    content_type: str
    timestamp: float
    correlation_id: str | None
    reply_to: str | None
    ttl: float | None


@dataclass(slots=True)
class Message:
    """A message as it travels.

    id: unique; made when left out, kept when given. key: the ordering key. type: dot-separated words, what routing
    patterns match. headers: text to text. timestamp: seconds since the epoch (UTC), kept to the millisecond.
    expires_at: the same clock; the message is not delivered after it. content_type None: put there by a program
    that did not say.
    """

    body: bytes
    key: str | None = None
    type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    content_type: str | None = None
    timestamp: float = 0.0
    correlation_id: str | None = None
    reply_to: str | None = None
    expires_at: float | None = None

    @classmethod
    def of(cls, value: Any, **fields: Any) -> Message:
        """Encodes `value` (bytes pass through, everything else is JSON) and takes the fields of `MessageFields`.

        Raises EncodeError when the value cannot be encoded and InvalidMessage when a field is wrong.
        """
        ttl = fields.pop("ttl", None)
        body, content_type = encode(value, fields.pop("content_type", None))
        message = cls(body, content_type=content_type, **fields)
        if ttl is not None:
            if not isinstance(ttl, int | float) or not 0 < ttl < float("inf"):
                raise InvalidMessage(f"ttl must be a positive number of seconds, not {ttl!r}")
            _check_time(message.timestamp, "timestamp")
            message.expires_at = (message.timestamp or time.time()) + ttl
        return message


PlainValue = tuple[bytes, str, str]
"""Body, id and content type of a message that has nothing else. The collector does not look at it again and again."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def plain_message(value: PlainValue, timestamp: float) -> Message:
    """The message that `value` stands for."""
    body, id, content_type = value
    return Message(body, None, "", _NO_HEADERS, id, content_type, timestamp)


def id_factory() -> Callable[[], str]:
    """Returns a function that makes unique ids: 64 random bits, then a counter. Thread-safe.

    Not uuid4: that costs more than the rest of a publish to Kafka.
    """
    prefix = os.urandom(8).hex()
    counter = count()
    return lambda: prefix + str(next(counter))


def check_message(message: Message, destination: str) -> None:
    """Raises InvalidMessage when a broker could not carry `message` unchanged."""
    try:
        if not isinstance(message.body, bytes):
            raise ValueError(f"the body of a Message must be bytes, not {type(message.body).__name__}")
        if message.headers or message.headers is None:
            _check_headers(message.headers)
        _check_time(message.timestamp, "timestamp")
        if message.expires_at is not None:
            _check_time(message.expires_at, "expires_at")
        if message.key is not None:
            _check_text(message.key, "key", 1)
        if message.type != "":
            _check_text(message.type, "type", 0)
        _check_text(message.id, "id", 1)
        for name in ("content_type", "correlation_id", "reply_to"):
            value = getattr(message, name)
            if value is not None:
                _check_text(value, name, 1)
    except (ValueError, InvalidMessage) as error:
        raise InvalidMessage(f"publish to {destination!r}: {error}; nothing was sent") from None


def _check_headers(headers: Mapping[str, str]) -> None:
    if not isinstance(headers, Mapping):
        raise ValueError(f"headers must be a mapping of text to text, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f"header {name!r}: names and values must be str, not {type(value).__name__}")
        if name.startswith("x-messaging-") or name == "x-death":
            raise ValueError(f"header {name!r}: the prefix 'x-messaging-' and 'x-death' are reserved")
        _check_text(name, "header name", 1)
        _check_text(value, f"header {name!r}", 0, limit=None)


def _check_time(value: object, what: str) -> None:
    # Within what every broker carries; it also catches milliseconds, which would be the year 50000.
    if not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise InvalidMessage(f"{what} must be seconds since the epoch (UTC), not {value!r}")


def _check_text(value: object, what: str, least: int, limit: int | None = _SHORT) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be str, not {type(value).__name__}")
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise ValueError(f"{what} {value!r} is not valid Unicode text") from None
    if size < least:
        raise ValueError(f"{what} must not be empty")
    if limit is not None and size > limit:
        raise ValueError(f"{what} is {size} bytes; the portable limit is {limit}")
