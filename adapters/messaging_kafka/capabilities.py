"""What Kafka can do through this adapter."""

from __future__ import annotations

from dataclasses import replace

from messaging.capabilities import Capabilities, emulated, native, unsupported

from .admin import DEFAULT_LIMIT, RECORD_OVERHEAD

_COMMON = Capabilities(
    queues=emulated("a topic read by one consumer group"),
    topics=native("topic; a subscription is a consumer group"),
    patterns=emulated("filtered in the consumer"),
    ordering=native("record key, murmur2; one partition belongs to one consumer"),
    nack_delay=emulated("kept and run again by the consumer; the position stays below it"),
    dead_letter=emulated("a confirmed copy in a topic, then the position moves"),
    delayed_queue=unsupported("Kafka delivers at once"),
    delayed_topic=unsupported("Kafka delivers at once"),
    ttl=emulated("a header, checked at delivery"),
    mandatory=unsupported("Kafka does not know who reads a topic"),
    lease=unsupported("a message stays with its consumer while that lives"),
    replay=native("seek; within the partitions that the consumer holds"),
    lag=native("end minus committed offset"),
    transactions=native("transactional producer, fenced by the group's generation; topics only"),
    max_message_bytes=DEFAULT_LIMIT - RECORD_OVERHEAD,
)


def capabilities(share_groups: bool, max_message_bytes: int | None = None) -> Capabilities:
    """The capabilities with queues on share groups, or on consumer groups."""
    own = replace(_COMMON, max_message_bytes=max_message_bytes or _COMMON.max_message_bytes)
    if not share_groups:
        return own
    return replace(own, queues=native("share group (KIP-932); ordered queues: a consumer group"))
