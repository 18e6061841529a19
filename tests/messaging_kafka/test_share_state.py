"""The share coordinator's records, as KIP-932 and Kafka's own message definitions write them."""

from __future__ import annotations

import struct

import pytest

from messaging_kafka.share_state import Progress, _apply, _home, _key

SNAPSHOT, UPDATE = 0, 1
TOPIC_ID = bytes(range(16))


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def value(kind: int, start: int, batches: int, done: int | None) -> bytes:
    head = struct.pack(">hiii", 0, 1, 1, 1) if kind == SNAPSHOT else struct.pack(">hii", 0, 1, 1)
    times = struct.pack(">qq", 1, 1) if kind == SNAPSHOT else b""
    states = b"".join(struct.pack(">qqbh", n, n, 2, 1) + b"\0" for n in range(batches))
    tags = b"\0" if done is None else b"\1\0\4" + struct.pack(">i", done)
    return head + struct.pack(">q", start) + times + varint(batches + 1) + states + tags


@pytest.mark.parametrize("kind", [SNAPSHOT, UPDATE])
@pytest.mark.parametrize("batches", [0, 1, 300])
@pytest.mark.parametrize("done", [None, 0, 70_000])
def test_start_and_count_are_found_behind_any_number_of_batches(kind: int, batches: int, done: int | None) -> None:
    assert _apply(Progress(), kind, value(kind, 42, batches, done)) == Progress(42, done or 0)


def test_an_update_without_a_start_keeps_the_one_before() -> None:
    assert _apply(Progress(42, 3), UPDATE, value(UPDATE, -1, 2, 5)) == Progress(42, 5)


@pytest.mark.parametrize(("kind", "data"), [(7, value(UPDATE, 1, 0, 1)), (UPDATE, b""), (SNAPSHOT, b"\0")])
def test_other_records_change_nothing(kind: int, data: bytes) -> None:
    assert _apply(Progress(42, 3), kind, data) == Progress(42, 3)


def test_a_key_is_group_topic_and_partition() -> None:
    assert _key("gé", TOPIC_ID, 5) == b"\0\3g\xc3\xa9" + TOPIC_ID + b"\0\0\0\5"


def test_the_home_is_javas_hash() -> None:
    # As in Java: Math.abs("g:AAECAwQFBgcICQoLDA0ODw:0".hashCode()) % 50, worked out by the definition of hashCode.
    text = "g:AAECAwQFBgcICQoLDA0ODw:0"
    code = sum(ord(c) * 31 ** (len(text) - 1 - i) for i, c in enumerate(text)) % 2**32
    signed = code - 2**32 if code >= 2**31 else code
    assert _home("g", TOPIC_ID, 0, 50) == abs(signed) % 50
