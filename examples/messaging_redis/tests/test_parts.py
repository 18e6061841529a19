"""What needs no server."""

from __future__ import annotations

import pytest
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLost

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    ConfigurationError,
    DestinationNotFound,
    MessagingError,
    PublishFailed,
)
from messaging.message import Message
from messaging_redis import RedisOptions
from messaging_redis.client import translate
from messaging_redis.wire import decode, encode


def test_a_message_comes_back_as_it_was() -> None:
    message = Message(b"\x00body", "key", "order.placed", {"a": "ä"}, "7", "text/plain", 1.5, "c", "r", 2.5)
    body, meta = encode(message)
    assert decode(b"1-0", {b"body": body, b"meta": meta}) == message


@pytest.mark.parametrize("meta", [{}, {b"meta": b"{"}, {b"meta": b'{"colour": 1}'}, {b"meta": b"7"}])
def test_what_another_program_put_there_never_raises(meta: dict[bytes, bytes]) -> None:
    message = decode(b"1500-0", {b"body": b"x", b"colour": b"\xff", **meta})
    assert (message.body, message.id, message.timestamp) == (b"x", "1500-0", 1.5)
    assert message.headers["colour"] == "�"


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (ConnectionLost("gone"), BrokerUnavailable),
        (AuthenticationError("wrong"), AuthenticationFailed),  # a ConnectionError of redis-py's
        (OutOfMemoryError("full"), PublishFailed),
        (ResponseError("NOTFOUND jobs"), DestinationNotFound),
        (ResponseError("what"), MessagingError),
    ],
)
def test_errors_are_translated(error: RedisError, ours: type[MessagingError]) -> None:
    assert type(translate(error, "publish 'jobs'")) is ours


@pytest.mark.parametrize(
    "wrong",
    [
        {"hosts": (("a", 1), ("b", 2))},
        {"path": "zero"},
        {"connect_timeout": 0.0},
        {"lease": -1.0},
        {"prefix": "{x}"},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        RedisOptions(**wrong)  # type: ignore[arg-type]
