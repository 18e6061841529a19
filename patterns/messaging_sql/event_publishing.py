"""Publishing events: through the outbox, in the transaction of the append."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from messaging.codec import JSON
from messaging.message import Message
from messaging_sql.event_store import Publish
from messaging_sql.events import Recorded
from messaging_sql.outbox import Outbox


def to_outbox(outbox: Outbox, topic: str | Callable[[Recorded], str | None]) -> Publish:
    """For `EventStore(publish=...)`: each event becomes a message, published if and only if it is stored.

    topic: where to, or what says so for an event, None: not at all. The message has the event's id and type, and its
    stream as the key, so that the events of a stream stay in order; version and position are in the headers
    `event-version` and `event-position`.
    """

    def publish(connection: Connection, events: Sequence[Recorded]) -> None:
        by_topic: dict[str, list[Message]] = {}
        for event in events:
            destination = topic if isinstance(topic, str) else topic(event)
            if destination is not None:
                by_topic.setdefault(destination, []).append(_message(event))
        for destination, messages in by_topic.items():
            outbox.add_many(connection, destination, messages)

    return publish


def _message(event: Recorded) -> Message:
    headers = event.metadata
    correlation_id = headers.pop("correlation_id", None)
    headers.update(
        {
            "event-version": str(event.version),
            "event-position": str(event.position),
            "event-schema": str(event.schema),
        }
    )
    return Message(
        event.data.encode(),
        key=event.stream,
        type=event.type,
        id=event.id,
        content_type=JSON,
        correlation_id=correlation_id,
        timestamp=event.time,
        headers=headers,
    )
