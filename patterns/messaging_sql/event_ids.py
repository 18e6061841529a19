"""Ids of events: UUIDs that begin with the time."""

from __future__ import annotations

import os

_RANDOM = 9
"""Bytes of each."""


def new_ids(now: float, count: int) -> list[str]:
    """UUIDs of version 7 (RFC 9562), as text.

    New ones are next to each other in the unique index of the ids. Random ones are all over it, and an append of a
    hundred events would have the database write a hundred pages of that index.
    """
    time = f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}"
    begin = f"{time[:8]}-{time[8:]}-7"
    digits = os.urandom(_RANDOM * count).hex()
    each = 2 * _RANDOM
    parts = [digits[start : start + each] for start in range(0, each * count, each)]
    return [f"{begin}{part[:3]}-8{part[3:6]}-{part[6:]}" for part in parts]
