"""AMQP 0-9-1 frames, written and read with as little work a message as Python allows.

pika encodes each of a message's three frames through several objects; that is most of the cost of a publish, so
the frames of a message are made here instead and handed to pika's connection joined. Layouts: AMQP 0-9-1
specification, sections 2.3.5 (frames) and 4.2.5; field tables as RabbitMQ encodes them ("AMQP 0-9-1 Errata").
Pure functions.
"""

from __future__ import annotations

import json
from decimal import Decimal
from struct import Struct, error, unpack_from
from typing import Any

from messaging.errors import InvalidMessage, MessageTooLarge
from messaging.message import Message

METHOD, HEADER, BODY = 1, 2, 3
DELIVER, RETURN, ACK, NACK = 0x003C003C, 0x003C0032, 0x003C0050, 0x003C0078
FRAME_END = 0xCE
OVERHEAD = 8

INTERNAL = "x-messaging-"
ATTEMPT = "x-messaging-attempt"
TIMESTAMP = "x-messaging-timestamp"
KEY = "x-messaging-key"
EXPIRES = "x-messaging-expires-at"
ESCAPED = "x-messaging-header-"

_BROKER_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_ROUTING_HEADERS = ("CC", "BCC")

_content_header = Struct(">BHIHHQH").pack
_body_header = Struct(">BHI").pack
_settle = Struct(">BHIIQBB").pack
_long = Struct(">I").pack
_longlong = Struct(">Q").pack


def settle_frame(channel: int, tag: int, multiple: bool = False) -> bytes:
    """basic.ack."""
    return _settle(METHOD, channel, 13, ACK, tag, multiple, FRAME_END)


def reject_frame(channel: int, tag: int, requeue: bool) -> bytes:
    """basic.reject: unlike basic.nack it raises the delivery count of what it requeues on every version of RabbitMQ."""
    return _settle(METHOD, channel, 13, 0x003C005A, tag, requeue, FRAME_END)


def publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    """basic.publish with mandatory set. The same for every message to one place, so callers keep it."""
    payload = b"\x00\x3c\x00\x28\x00\x00" + _short(exchange) + _short(routing_key) + b"\x01"
    return _body_header(METHOD, channel, len(payload)) + payload + b"\xce"


def content_frames(message: Message, attempts: int, channel: int, frame_max: int) -> bytes:
    """The content header and body frames of `message`. `attempts`: deliveries of it before this copy was made.

    Raises MessageTooLarge when the properties do not fit in one frame, which AMQP demands.
    """
    flags = 0x3080
    before = after = middle = b""
    if message.content_type is not None:
        flags |= 0x8000
        before = _short(message.content_type)
    stamp = message.timestamp
    milliseconds = b"%d" % round(stamp * 1000)
    table = _TIMESTAMP_FIELD + _long(len(milliseconds)) + milliseconds
    if message.key is not None:
        key = message.key.encode()
        table += _KEY_FIELD + _long(len(key)) + key
    if message.headers or attempts or message.expires_at is not None:
        table += _more_headers(message, attempts)
    if message.correlation_id is not None:
        flags |= 0x0400
        middle = _short(message.correlation_id)
    if message.reply_to is not None:
        flags |= 0x0200
        middle += _short(message.reply_to)
    if stamp >= 1:
        flags |= 0x0040
        after = _longlong(int(stamp))
    if message.type:
        flags |= 0x0020
        after += _short(message.type)
    properties = b"".join((before, _long(len(table)), table, b"\x02", middle, _short(message.id), after))
    body = message.body
    size = len(body)
    if len(properties) + 14 + OVERHEAD > frame_max:
        raise MessageTooLarge(
            f"message {message.id}: properties and headers of {len(properties)} bytes do not fit in one AMQP frame "
            f"of {frame_max} bytes; it was not sent"
        )
    header = _content_header(HEADER, channel, len(properties) + 14, 60, 0, size, flags)
    if not size:
        return b"".join((header, properties, b"\xce"))
    most = frame_max - OVERHEAD
    if size <= most:
        return b"".join((header, properties, b"\xce", _body_header(BODY, channel, size), body, b"\xce"))
    parts = [header, properties, b"\xce"]
    for start in range(0, size, most):
        piece = body[start : start + most]
        parts += (_body_header(BODY, channel, len(piece)), piece, b"\xce")
    return b"".join(parts)


def _more_headers(message: Message, attempts: int) -> bytes:
    fields = []
    if attempts:
        fields.append(_field(ATTEMPT, str(attempts)))
    if message.expires_at is not None:
        fields.append(_field(EXPIRES, str(round(message.expires_at * 1000))))
    for name, value in message.headers.items():
        # RabbitMQ gives these names a meaning: a CC of text closes the channel, a count would be believed.
        if name in _ROUTING_HEADERS or name.startswith(_BROKER_HEADERS):
            name = ESCAPED + name
        fields.append(_field(name, value))
    return b"".join(fields)


def _field(name: str, value: str) -> bytes:
    data = value.encode()
    return b"".join((_short(name), b"S", _long(len(data)), data))


def _short(text: str) -> bytes:
    data = text.encode()
    try:
        return b"%c%b" % (len(data), data)
    except OverflowError:
        raise InvalidMessage(f"{text[:40]!r}... is longer than the 255 bytes of an AMQP short string") from None


_TIMESTAMP_FIELD = _short(TIMESTAMP) + b"S"
_KEY_FIELD = _short(KEY) + b"S"


class Properties:
    """Basic properties as they arrived, with header values of any AMQP type."""

    __slots__ = (
        "app_id", "cluster_id", "content_encoding", "content_type", "correlation_id", "delivery_mode", "expiration",
        "headers", "message_id", "priority", "reply_to", "timestamp", "type", "user_id",
    )  # fmt: skip

    def __init__(self) -> None:
        self.headers: dict[str, Any] = {}
        self.content_type: str | None = None
        self.correlation_id: str | None = None
        self.reply_to: str | None = None
        self.message_id: str | None = None
        self.type: str | None = None
        self.timestamp: int | None = None
        self.content_encoding: str | None = None
        self.delivery_mode: int | None = None
        self.priority: int | None = None
        self.expiration: str | None = None
        self.user_id: str | None = None
        self.app_id: str | None = None
        self.cluster_id: str | None = None


_FIELDS = (
    (0x8000, "content_type", "s"), (0x4000, "content_encoding", "s"), (0x2000, "headers", "F"),
    (0x1000, "delivery_mode", "B"), (0x0800, "priority", "B"), (0x0400, "correlation_id", "s"),
    (0x0200, "reply_to", "s"), (0x0100, "expiration", "s"), (0x0080, "message_id", "s"), (0x0040, "timestamp", "T"),
    (0x0020, "type", "s"), (0x0010, "user_id", "s"), (0x0008, "app_id", "s"), (0x0004, "cluster_id", "s"),
)  # fmt: skip


def decode_properties(data: bytes) -> Properties:
    """Reads property flags and fields. Never raises: what cannot be understood is left out, with all after it."""
    found = Properties()
    try:
        flags = unpack_from(">H", data)[0]
        at = 2
        for bit, name, kind in _FIELDS:
            if not flags & bit:
                continue
            if kind == "s":
                end = at + 1 + data[at]
                setattr(found, name, text(data[at + 1 : end]))
                at = end
            elif kind == "F":
                end = at + 4 + unpack_from(">I", data, at)[0]
                found.headers = _table(data, at + 4, end)
                at = end
            elif kind == "B":
                setattr(found, name, data[at])
                at += 1
            else:
                found.timestamp = unpack_from(">Q", data, at)[0]
                at += 8
    except (error, IndexError):
        pass
    return found


def _table(data: bytes, at: int, end: int) -> dict[str, Any]:
    found = {}
    try:
        while at < end:
            size = data[at]
            name = text(data[at + 1 : at + 1 + size])
            found[name], at = _value(data, at + 1 + size)
    except (error, IndexError, KeyError):
        pass
    return found


_FIXED = {
    b"t": Struct(">?"), b"b": Struct(">b"), b"B": Struct(">B"), b"s": Struct(">h"), b"u": Struct(">H"),
    b"I": Struct(">i"), b"i": Struct(">I"), b"l": Struct(">q"), b"L": Struct(">q"), b"f": Struct(">f"),
    b"d": Struct(">d"), b"T": Struct(">Q"),
}  # fmt: skip


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """Raises KeyError for a type nobody sends, whose length is therefore unknown."""
    kind = data[at : at + 1]
    at += 1
    if kind == b"V":
        return None, at
    if kind == b"D":
        scale, number = unpack_from(">Bi", data, at)
        return Decimal(number).scaleb(-scale), at + 5
    if kind in (b"S", b"x", b"F", b"A"):
        start = at + 4
        end = start + int(unpack_from(">I", data, at)[0])
        if kind == b"F":
            return _table(data, start, end), end
        if kind == b"A":
            values = []
            while start < end:
                value, start = _value(data, start)
                values.append(value)
            return values, end
        return data[start:end], end
    fixed = _FIXED[kind]
    return fixed.unpack_from(data, at)[0], at + fixed.size


def text(value: Any) -> str:
    """`value` of any AMQP type as text: bytes as UTF-8, else with backslashes; tables and arrays as JSON."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, default=text, ensure_ascii=False)
    return str(value)


def visible_headers(headers: dict[str, Any]) -> dict[str, str]:
    """The headers the publisher gave, without the broker's and this adapter's own."""
    visible = {}
    for name, value in headers.items():
        if name.startswith(INTERNAL):
            if name.startswith(ESCAPED):
                visible[name.removeprefix(ESCAPED)] = text(value)
        elif name not in _ROUTING_HEADERS and not name.startswith(_BROKER_HEADERS):
            visible[name] = text(value)
    return visible


def whole(value: Any) -> int | None:
    """`value` as a count or a time, or None when a foreign program wrote something else."""
    try:
        number = int(text(value))
    except ValueError:
        return None
    return number if 0 <= number < 2**63 else None
