"""Messages as stream entries: `body` as it is, everything else as JSON in `meta`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from messaging.delivery import PlainDelivery, Settler
from messaging.message import Message
from messaging.topology import Source

_FIELDS = ("id", "key", "type", "headers", "content_type", "timestamp", "correlation_id", "reply_to", "expires_at")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class RedisDelivery(PlainDelivery):
    """`native` is a stream entry as redis-py has it: its id and a dict of its fields.

    count: the broker's own delivery count; with the id it names this delivery. deadline: when the lease ends, on the
    monotonic clock, as far as known here.
    """

    __slots__ = ("count", "deadline")

    def __init__(
        self, settler: Settler, source: Source, id: bytes, count: int, flat: Sequence[bytes], deadline: float
    ) -> None:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        super().__init__(settler, source, (id, fields), count)
        self.count = count
        self.deadline = deadline

    @property
    def named(self) -> tuple[bytes, int]:
        """What a settlement says which delivery it is about."""
        return self.native[0], self.count

    def _load(self) -> Message:
        return decode(*self.native)


def encode(message: Message) -> tuple[bytes, bytes]:
    """The fields `body` and `meta`."""
    about = {name: value for name in _FIELDS if (value := getattr(message, name)) not in (None, "")}
    return message.body, _encode({**about, "headers": dict(message.headers)})


def decode(id: bytes, fields: Mapping[bytes, bytes]) -> Message:
    """What another program put there has no `meta`: its other fields are headers, its entry id is the message's."""
    body = fields.get(b"body", b"")
    try:
        about: dict[str, Any] = _decode(fields[b"meta"])
        return Message(body, **about)
    except (KeyError, TypeError, msgspec.DecodeError):
        headers = {_text(name): _text(value) for name, value in fields.items() if name != b"body"}
        milliseconds = int(id.partition(b"-")[0])
        return Message(body, headers=headers, id=_text(id), timestamp=milliseconds / 1000)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
