"""A message as a Kafka record and back.

The key is the record's key, the timestamp the record's own (milliseconds), the body its value; everything else is a
record header, UTF-8. Headers of our own begin with `x-messaging-` and are not shown to the receiver.

Kafka deletes records by their own timestamp. So a copy, and what is published as older than its topic keeps, has the
time of now there and its message's in a header.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from msgspec import Struct

from messaging.codec import BYTES
from messaging.dead_letter import HEADERS as DEAD_LETTER
from messaging.dead_letter import dead_letter_copy
from messaging.delivery import UNSET, Delivery, Settler
from messaging.errors import InvalidMessage, MessageTooLarge
from messaging.message import Message
from messaging.rejection import Rejection
from messaging.topology import Source

INTERNAL = "x-messaging-"
ID = "x-messaging-id"
TYPE = "x-messaging-type"
CONTENT_TYPE = "x-messaging-content-type"
"""Left out for plain bytes, empty for a message that has none: a header costs the client as much as a short body."""
CORRELATION_ID = "x-messaging-correlation-id"
REPLY_TO = "x-messaging-reply-to"
EXPIRES_AT = "x-messaging-expires-at"
ATTEMPT = "x-messaging-attempt"
"""How many times a copied message had been delivered before it was copied."""
TIMESTAMP = "x-messaging-timestamp"
"""The message's timestamp where the record has another: milliseconds since the epoch."""
DUE = "x-messaging-not-before"
"""When a copied message may be delivered again: seconds since the epoch."""
TOKEN = "x-messaging-token"
"""Marks a copy whose original's delivery goes on in the consumer that made it."""

ONLY = "x-messaging-only"
"""The one group that a record is for. A topic has no place of its own for each group."""
_CONDITIONS = frozenset({EXPIRES_AT, ONLY})
"""A record that is not for everybody at any time has one of these as its first header."""

SURELY_FITS = 512
"""Bytes of body that need no closer look when there are no headers: key, id and type are short."""

Headers = list[tuple[str, Any]]

_UNREADABLE = (UnicodeDecodeError, SystemError, ValueError)
"""What the client library raises for header names that are not UTF-8."""


def to_headers(message: Message) -> Headers:
    """The record headers of `message`. Values are bytes: the client cuts text at a NUL."""
    headers: Headers = [(ID, message.id.encode())]
    if message.headers:
        headers += [(name, value.encode()) for name, value in message.headers.items()]
    if message.expires_at is not None:
        headers.insert(0, (EXPIRES_AT, repr(message.expires_at).encode()))
    if message.type:
        headers.append((TYPE, message.type.encode()))
    if message.content_type != BYTES:
        headers.append((CONTENT_TYPE, (message.content_type or "").encode()))
    if message.correlation_id is not None:
        headers.append((CORRELATION_ID, message.correlation_id.encode()))
    if message.reply_to is not None:
        headers.append((REPLY_TO, message.reply_to.encode()))
    return headers


def plain_headers(id: str, content_type: str) -> Headers:
    """The record headers of a message that has no more than a body."""
    if content_type == BYTES:
        return [(ID, id.encode())]
    return [(ID, id.encode()), (CONTENT_TYPE, content_type.encode())]


def only_header(source: Source) -> tuple[str, bytes]:
    """The header of a record for one group of a topic."""
    assert source.subscription is not None
    return ONLY, source.subscription.group.encode()


def size_of(message: Message) -> int:
    """Bytes of key, body and headers, with the few that the record format adds to each."""
    size = len(message.body) + 64 + (0 if message.key is None else len(message.key.encode()))
    return size + sum(len(name.encode()) + len(value) + 8 for name, value in to_headers(message))


def check_size(message: Message, topic: str, limit: int) -> None:
    """Raises MessageTooLarge when `topic`, which takes `limit` bytes, cannot hold `message`, and InvalidMessage."""
    if message.headers:
        for name in message.headers:
            if "\0" in name:
                raise InvalidMessage(
                    f"publish to {topic!r}: header name {name!r} has a NUL, which Kafka's client cuts at"
                )
    if (message.headers or len(message.body) > SURELY_FITS) and (size := size_of(message)) > limit:
        raise MessageTooLarge(
            f"publish to {topic!r}: the message is {size} bytes and the topic takes {limit}; nothing was sent: "
            f"split it, send a reference to where it is stored, or raise the topic's max.message.bytes"
        )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def headers_of(record: Any) -> Headers:
    """The record's headers as they are; none when the client library cannot decode their names."""
    try:
        return record.headers() or []
    except _UNREADABLE:
        return []


def type_of(record: Any) -> str:
    """The message type of a record, "" when it has none."""
    return next((_text(value) for name, value in headers_of(record) if name == TYPE), "")


def attempts_of(record: Any) -> int:
    """How many deliveries a copied record had before, 0 for any other."""
    text = next((_text(value) for name, value in headers_of(record) if name == ATTEMPT), "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def due_of(record: Any) -> float:
    """When a copied record may be delivered, seconds since the epoch; 0 for any other."""
    try:
        return next((float(_text(value)) for name, value in headers_of(record) if name == DUE), 0.0)
    except ValueError:
        return 0.0


def token_of(record: Any) -> str | None:
    """The token of a copy, see `TOKEN`."""
    return next((_text(value) for name, value in headers_of(record) if name == TOKEN), None)


def _own_headers(record: Any, without: Container[str]) -> Headers:
    """The record's headers as they are, but those in `without`; and its id and time, which a copy does not have."""
    headers = [(name, value) for name, value in headers_of(record) if name not in without]
    names = {name for name, _value in headers}
    if ID not in names:  # somebody else's record
        headers.append((ID, to_message(record).id.encode()))
        if CONTENT_TYPE not in names:
            headers.append((CONTENT_TYPE, b""))
    if TIMESTAMP not in names:
        headers.append((TIMESTAMP, str(max(record.timestamp()[1], 0)).encode()))
    return headers


def dead_letter_headers(delivery: Delivery, why: Rejection) -> Headers:
    """The headers of the dead letter of `delivery`; key and value stay the record's, whatever bytes they are."""
    about = dead_letter_copy(delivery, why).headers
    headers = _own_headers(delivery.native, {ATTEMPT, DUE, TOKEN, ONLY, EXPIRES_AT, *DEAD_LETTER})
    return headers + [(name, about[name].encode()) for name in sorted(DEAD_LETTER & about.keys())]


def alive_again_headers(record: Any) -> Headers:
    """The headers of what a dead letter was before."""
    return _own_headers(record, {ATTEMPT, DUE, TOKEN, *DEAD_LETTER})


def copy_headers(record: Any, attempts: int, due: float = 0.0, token: str | None = None) -> Headers:
    """The headers of a copy of `record` that was delivered `attempts` times: its own, as they are, and these."""
    headers = _own_headers(record, {ATTEMPT, DUE, TOKEN})
    headers.append((ATTEMPT, str(attempts).encode()))
    if due:
        headers.append((DUE, repr(due).encode()))
    if token is not None:
        headers.append((TOKEN, token.encode()))
    return headers


def to_message(record: Any) -> Message:
    """The message in `record`, whoever put it there. Never raises for what a record may hold."""
    own: dict[str, str] = {}
    headers: dict[str, str] = {}
    for name, value in headers_of(record):
        (own if name.startswith(INTERNAL) else headers)[name] = _text(value)
    key = record.key()
    try:
        expires_at = float(own[EXPIRES_AT]) if EXPIRES_AT in own else None
    except ValueError:
        expires_at = None
    return Message(
        record.value() or b"",
        None if key is None else _text(key),
        own.get(TYPE, ""),
        headers,
        own.get(ID) or f"{record.topic()}-{record.partition()}-{record.offset()}",
        own.get(CONTENT_TYPE, BYTES if ID in own else "") or None,
        _milliseconds(own.get(TIMESTAMP, ""), record) / 1000,
        own.get(CORRELATION_ID) or None,
        own.get(REPLY_TO) or None,
        expires_at,
    )


def _milliseconds(text: str, record: Any) -> int:
    return int(text) if text.isdecimal() and len(text) < 15 else max(record.timestamp()[1], 0)


class KafkaDelivery(Delivery):
    """A record that this consumer holds. `native` is the confluent-kafka Message; its null value is body b"".

    `tracker` is what `offset` is settled in, and not `alive` once somebody else may have the record.
    """

    __slots__ = tuple[str, ...]()

    tracker: Any
    offset: int

    def _load(self) -> Message:
        return to_message(self.native)

    @property
    def body(self) -> bytes:
        return self.native.value() or b""

    @property
    def expires_at(self) -> float | None:
        return self.message.expires_at

    def is_over(self, now: float) -> bool:
        """Whether it is not to be handed out: expired, or for another group."""
        only = next((_text(value) for name, value in headers_of(self.native) if name == ONLY), None)
        if only is not None and self.source.subscription is not None and only != self.source.subscription.group:
            return True
        ends = self.message.expires_at
        return ends is not None and ends <= now


def expired(deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
    """As `Receiver.expired`, for deliveries of this adapter. Every one is asked: one look at its first header."""
    try:
        conditional: list[Any] = [d for d in deliveries if (h := d.native.headers()) and h[0][0] in _CONDITIONS]
    except _UNREADABLE:
        conditional = [d for d in deliveries if (h := headers_of(d.native)) and h[0][0] in _CONDITIONS]
    return [delivery for delivery in conditional if delivery.is_over(now)]


class GroupDelivery(KafkaDelivery, Struct, gc=False, eq=False):
    """A record of an assigned partition. One is made for every message, so it is a struct, of which the collector knows
    nothing: it may be in no cycle, and who keeps deliveries drops them when it ends.
    """

    settler: Settler
    source: Source
    native: Any
    tracker: Any
    offset: int
    attempt: int = 1
    as_type: Any = None
    _message: Message | None = None
    _value: Any = UNSET
    _settled: bool = False
