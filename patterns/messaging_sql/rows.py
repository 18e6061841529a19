"""A message as a row of the outbox, and back, unchanged."""

from __future__ import annotations

import time
import uuid
import zlib
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Row

from messaging.errors import InvalidMessage
from messaging.message import Message, check_message
from messaging_sql.tables import LANES


def row_of(topic: str, message: Message) -> dict[str, Any]:
    """The row that `message` waits in. Raises InvalidMessage when no broker could carry it, or its id is no UUID."""
    number = _uuid(message.id, topic)
    complete = replace(message, id=str(number), timestamp=message.timestamp or time.time())
    check_message(complete, topic)
    for name in ("key", "type", "content_type", "correlation_id", "reply_to"):
        if "\0" in (getattr(complete, name) or ""):
            raise InvalidMessage(f"outbox, to {topic!r}: {name} holds a NUL character, which databases do not take")
    return {
        "id": number,
        "aggregatetype": topic,
        "aggregateid": complete.key,
        "type": complete.type,
        "payload": complete.body,
        "content_type": complete.content_type,
        "headers": msgspec.json.encode(dict(complete.headers)).decode() if complete.headers else None,
        "timestamp": round(complete.timestamp * 1000),
        "expires_at": None if complete.expires_at is None else round(complete.expires_at * 1000),
        "correlation_id": complete.correlation_id,
        "reply_to": complete.reply_to,
        "lane": lane_of(topic, complete.key, complete.id),
    }


def message_of(row: Row[Any]) -> Message:
    """The message that waits in `row`."""
    return Message(
        bytes(row.payload),
        key=row.aggregateid,
        type=row.type,
        headers=msgspec.json.decode(row.headers) if row.headers else {},
        id=str(row.id),
        content_type=row.content_type,
        timestamp=row.timestamp / 1000,
        correlation_id=row.correlation_id,
        reply_to=row.reply_to,
        expires_at=None if row.expires_at is None else row.expires_at / 1000,
    )


def lane_of(topic: str, key: str | None, message_id: str) -> int:
    """The same lane for every message of a key; without a key any."""
    # Not `hash`: another process has another.
    return zlib.crc32(f"{topic}\0{message_id if key is None else key}".encode()) % LANES


def _uuid(given: object, topic: str) -> uuid.UUID:
    if not given:
        return uuid.uuid4()
    try:
        number = uuid.UUID(given)  # type: ignore[arg-type]
    except (ValueError, AttributeError, TypeError):
        number = None
    if number is None or str(number) != given:
        raise InvalidMessage(f"outbox, to {topic!r}: the id {given!r} is no UUID in its usual form; leave it out")
    return number
