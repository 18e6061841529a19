"""A message as an SQS or SNS entry, and back.

On the wire: the body, the attribute `type` (SNS filter policies look at it) and the attribute `x-messaging`, the
rest of the envelope as JSON. SQS takes 10 attributes in all, so headers are attributes of their own while they fit
and AWS takes their names and values; else all of them go into the envelope.

Bodies are text on SQS. One that is valid XML 1.0 text travels as it is, so that other programs can read it;
anything else (binary, control characters, empty) is base64, and the envelope says so.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from messaging.message import Message

ENVELOPE = "x-messaging"
TYPE = "type"

_MAX_ATTRIBUTES = 10
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What SQS refuses in bodies and attribute values (API reference, SendMessage: W3C XML 1.0 characters)."""
_ATTRIBUTE_NAME = re.compile(r"(?!aws\.|amazon\.|x-messaging)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.IGNORECASE)
_STRING = len("String")
_EMPTY = "-"
"""Stands for an empty body, which SQS does not take: not of the base64 alphabet."""


class Envelope(msgspec.Struct, omit_defaults=True):
    """What `x-messaging` holds. Times are milliseconds since the epoch."""

    id: str = ""
    time: int = 0
    key: str | None = None
    content_type: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expires: int | None = None
    base64: bool = False
    type: str | None = None
    headers: dict[str, str] | None = None


_envelope_to_json = msgspec.json.Encoder().encode
_envelope_of_json = msgspec.json.Decoder(Envelope).decode


class Encoded:
    """The fields of an entry. size: bytes as AWS counts them: body, and name, data type and value of attributes."""

    __slots__ = ("attributes", "body", "size")

    def __init__(self, body: str, attributes: dict[str, Any], size: int) -> None:
        self.body = body
        self.attributes = attributes
        self.size = size


def encode(message: Message) -> Encoded:
    """The entry for `message`. Every message can be encoded; whether it is too large is for the caller to check."""
    body, packed = _encode_body(message.body)
    envelope = Envelope(
        message.id,
        round(message.timestamp * 1000),
        message.key,
        message.content_type,
        message.correlation_id,
        message.reply_to,
        None if message.expires_at is None else round(message.expires_at * 1000),
        packed,
    )
    attributes: dict[str, Any] = {}
    size = len(body) if body.isascii() else len(body.encode())
    type_ = message.type
    if type_:
        if carries(type_):
            size += _add(attributes, TYPE, type_)
        else:
            envelope.type = type_
    headers = message.headers
    if headers:
        if len(headers) < _MAX_ATTRIBUTES - len(attributes) and all(map(_fits, headers.items())):
            for name, value in headers.items():
                size += _add(attributes, name, value)
        else:
            envelope.headers = dict(headers)
    size += _add(attributes, ENVELOPE, _encode_envelope(envelope))
    return Encoded(body, attributes, size)


def decode(raw: Mapping[str, Any]) -> Message:
    """The message that `ReceiveMessage` returned as `raw`. Never raises: foreign messages arrive as they are."""
    attributes: Mapping[str, Any] = raw.get("MessageAttributes") or {}
    system: Mapping[str, str] = raw.get("Attributes") or {}
    body: str = raw.get("Body") or ""
    texts = {name: _text(value) for name, value in attributes.items()} if attributes else {}
    type_ = texts.pop(TYPE, "")
    carried = texts.get(ENVELOPE)
    if carried is not None:
        try:
            envelope = _envelope_of_json(carried)
            data = _decode_body(body) if envelope.base64 else body.encode(errors="surrogatepass")
        except (msgspec.DecodeError, binascii.Error, ValueError):
            pass
        else:
            del texts[ENVELOPE]
            return Message(
                data,
                envelope.key,
                type_ or envelope.type or "",
                texts if envelope.headers is None else envelope.headers,
                envelope.id or str(raw.get("MessageId", "")),
                envelope.content_type,
                envelope.time / 1000,
                envelope.correlation_id,
                envelope.reply_to,
                None if envelope.expires is None else envelope.expires / 1000,
            )
    return Message(
        body.encode(errors="surrogatepass"),
        system.get("MessageGroupId"),
        type_,
        texts,
        str(raw.get("MessageId", "")),
        timestamp=_number(system.get("SentTimestamp")) / 1000,
    )


def carries(text: str) -> bool:
    """Whether `text` can be the value of an attribute."""
    return bool(text) and _NOT_XML.search(text) is None


def _fits(header: tuple[str, str]) -> bool:
    name, value = header
    return name != TYPE and len(name) <= 256 and _ATTRIBUTE_NAME.fullmatch(name) is not None and carries(value)


def _add(attributes: dict[str, Any], name: str, value: str) -> int:
    attributes[name] = {"DataType": "String", "StringValue": value}
    return len(name) + _STRING + (len(value) if value.isascii() else len(value.encode()))


def _encode_body(body: bytes) -> tuple[str, bool]:
    if body:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            pass
        else:
            if _NOT_XML.search(text) is None:
                return text, False
        return base64.b64encode(body).decode("ascii"), True
    return _EMPTY, True


def _decode_body(body: str) -> bytes:
    return b"" if body == _EMPTY else base64.b64decode(body, validate=True)


def _encode_envelope(envelope: Envelope) -> str:
    text = _envelope_to_json(envelope).decode()
    if _NOT_XML.search(text) is not None:
        text = json.dumps(json.loads(text), separators=(",", ":"))
    return text


def _text(attribute: Mapping[str, Any]) -> str:
    if "StringValue" in attribute:
        return str(attribute["StringValue"])
    value = attribute.get("BinaryValue", b"")
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
