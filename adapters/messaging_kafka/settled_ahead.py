"""What is settled above a group's committed position, written beside that position in its metadata.

Kafka keeps one offset a partition. Without this every message above an unsettled one would come again to whoever reads
the partition next. Confluent's Parallel Consumer does the same. The text is `<kind of order>:<position>:<bits>`: a bit
for each offset from the position on, deflated, in base64.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection

ROOM = 4000
"""Characters. A broker takes 4096 of them by default (`offset.metadata.max.bytes`)."""
_LARGEST = 1 << 14
"""Bytes of bits at most: a message further on, behind a gap of a compacted topic, is not written, and nothing larger is
unpacked, whoever wrote it."""


def encode(mark: str, position: int, settled: Collection[int], room: int = ROOM) -> str:
    """The text for `settled`, as many of its lowest as fit; only the mark when none are at `position` or above."""
    offsets = [offset - position for offset in settled if 0 <= offset - position < 8 * _LARGEST]
    while offsets:
        bits = bytearray(max(offsets) // 8 + 1)
        for offset in offsets:
            bits[offset >> 3] |= 1 << (offset & 7)
        text = f"{mark}:{position}:{base64.b64encode(zlib.compress(bits, 1)).decode()}"
        if len(text) <= room:
            return text
        half = max(offsets) // 2
        offsets = [offset for offset in offsets if offset < half]
    return mark


def mark_of(metadata: str | None) -> str:
    """The kind of order in it."""
    return (metadata or "").partition(":")[0]


def decode(metadata: str | None, position: int) -> set[int]:
    """The offsets in it. None when it was written for another position, as one that was moved from outside."""
    _, _, rest = (metadata or "").partition(":")
    written_for, _, packed = rest.partition(":")
    if written_for != str(position):
        return set()
    try:
        bits = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), _LARGEST)
    except (zlib.error, ValueError):  # binascii.Error is one
        return set()
    return {
        position + 8 * index + bit for index, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1
    }
