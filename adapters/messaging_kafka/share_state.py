"""How far a share group is, read where the brokers keep it.

The client library has no call for it (DescribeShareGroupOffsets), so this reads the share coordinator's own topic,
`__share_group_state`: a compacted log of snapshots and updates a share partition, written before an acknowledgement is
answered. Formats: KIP-932 and Kafka's ShareSnapshotValue.json and ShareUpdateValue.json, whose tagged field 0 is the
number of records that are done above the start offset (KIP-1226, Kafka 4.2).
"""

from __future__ import annotations

import base64
import struct
import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from messaging.errors import BrokerUnavailable, DestinationNotFound

from .admin import Admin
from .errors import translate
from .options import KafkaOptions

STATE_TOPIC = "__share_group_state"
_SNAPSHOT, _UPDATE = 0, 1
_TIMEOUT = 10.0
"""Seconds to read it: it is short, since it is compacted and old records are deleted."""


@dataclass(frozen=True)
class Progress:
    """Everything below `start` is done, and `done` records from there on. start -1: the group has not begun."""

    start: int = -1
    done: int = 0


def share_lag(admin: Admin, options: KafkaOptions, group: str, topic: str) -> int:
    """Messages of `topic` that `group` has not accepted."""
    ends = admin.ends(topic)
    starts = admin.offsets(topic, OffsetSpec.earliest(), len(ends))
    progress = _read(admin, options, group, topic, len(ends))
    lag = 0
    for partition, end in ends.items():
        known = progress.get(partition, Progress())
        if known.start >= starts[partition]:
            lag += max(end - known.start - known.done, 0)
        else:
            lag += end - starts[partition]  # not begun, or purged since
    return lag


def has_begun(admin: Admin, options: KafkaOptions, group: str, topic: str) -> bool:
    """Whether `group` has a beginning in every partition of `topic`. Raises BrokerUnavailable, DestinationNotFound."""
    partitions = len(admin.ends(topic))
    return len(_read(admin, options, group, topic, partitions)) == partitions


def _read(admin: Admin, options: KafkaOptions, group: str, topic: str, partitions: int) -> dict[int, Progress]:
    try:
        count = admin.require(STATE_TOPIC)
    except DestinationNotFound:
        return {}  # no share group has ever begun
    id_bytes = _id_bytes(admin.topic_id(topic))
    wanted = {_key(group, id_bytes, p): p for p in range(partitions)}
    homes = {_home(group, id_bytes, p, count) for p in range(partitions)}
    starts = admin.offsets(STATE_TOPIC, OffsetSpec.earliest(), count)
    filled = {p: starts[p] for p, end in admin.ends(STATE_TOPIC).items() if p in homes and end > starts[p]}
    progress: dict[int, Progress] = {}
    for key, value in _records(options, group, filled):
        partition = wanted.get(key[2:])
        if partition is not None and value is not None:
            before = progress.get(partition, Progress())
            progress[partition] = _apply(before, struct.unpack_from(">h", key)[0], value)
    return progress


def _records(options: KafkaOptions, group: str, starts: dict[int, int]) -> list[tuple[bytes, bytes | None]]:
    """Keys and values of the state topic's partitions from these offsets on."""
    if not starts:
        return []
    config = options.client(
        group_id=group,  # that of who asks: never joined or committed, and a group that the user may use
        session_timeout_ms=1,  # see Admin._outsider
        enable_auto_commit=False,
        enable_partition_eof=True,
        fetch_wait_max_ms=10,
    )
    found: list[tuple[bytes, bytes | None]] = []
    deadline = time.monotonic() + _TIMEOUT
    try:
        consumer = Consumer(config)
        try:
            # Offsets, not OFFSET_BEGINNING: the client takes half a second to find out what that is.
            consumer.assign([TopicPartition(STATE_TOPIC, p, offset) for p, offset in starts.items()])
            left = set(starts)
            while left:
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(f"{STATE_TOPIC} could not be read within {_TIMEOUT:g} s")
                record: Any = consumer.poll(0.2)
                if record is None:
                    continue
                error = record.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    left.discard(record.partition())
                elif error is not None:
                    if not translate(error, STATE_TOPIC).retryable:
                        raise KafkaException(error)
                elif record.key() is not None:
                    found.append((record.key(), record.value()))
        finally:
            consumer.close()
    except KafkaException as error:
        raise translate(error, f"read {STATE_TOPIC}") from error
    return found


def _id_bytes(topic_id: Any) -> bytes:
    high, low = topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits()
    return struct.pack(">qq", high, low)


def _key(group: str, topic_id: bytes, partition: int) -> bytes:
    """The record key after its version."""
    name = group.encode()
    return struct.pack(">h", len(name)) + name + topic_id + struct.pack(">i", partition)


def _home(group: str, topic_id: bytes, partition: int, count: int) -> int:
    """Which partition of the state topic holds it: Java's hash of `group:topicId:partition`."""
    code = 0
    for character in f"{group}:{base64.urlsafe_b64encode(topic_id).decode().rstrip('=')}:{partition}":
        code = (31 * code + ord(character)) & 0xFFFFFFFF
    signed = code - (1 << 32) if code >> 31 else code
    return (0 if signed == -(1 << 31) else abs(signed)) % count


def _apply(before: Progress, kind: int, value: bytes) -> Progress:
    if kind not in (_SNAPSHOT, _UPDATE) or len(value) < 2:
        return before
    # version, snapshot epoch, [state epoch], leader epoch, start offset, [two timestamps], batches, tagged fields
    at = 2 + (12 if kind == _SNAPSHOT else 8)
    (start,) = struct.unpack_from(">q", value, at)
    at += 8 + (16 if kind == _SNAPSHOT else 0)
    batches, at = _varint(value, at)
    for _ in range(batches - 1):
        at += 19  # first and last offset, state, delivery count
        at = _tags(value, at)[1]
    tagged, _ = _tags(value, at)
    done = struct.unpack(">i", tagged[0])[0] if 0 in tagged else 0
    if start < 0:
        start = before.start
    return Progress(start, max(done, 0))


def _tags(value: bytes, at: int) -> tuple[dict[int, bytes], int]:
    found = {}
    count, at = _varint(value, at)
    for _ in range(count):
        tag, at = _varint(value, at)
        size, at = _varint(value, at)
        found[tag] = value[at : at + size]
        at += size
    return found, at


def _varint(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = value[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
