"""What to do about a version conflict: read again, decide again, append again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from messaging.errors import ConfigurationError
from messaging_sql.event_errors import VersionConflict

T = TypeVar("T")


def retry_conflicts(work: Callable[[], T], *, attempts: int = 10, delay: float = 0.01) -> T:
    """Runs `work` until it raises no VersionConflict, `attempts` times at most; returns what it returned.

    work: all of it, from reading the stream on, in a transaction of its own: what was decided on old events has to be
    decided again. delay: about so many seconds before the second attempt, each time twice as long, up to a second.
    Raises the last VersionConflict, and at once whatever else `work` raises.
    """
    if attempts < 1:
        raise ConfigurationError(f"attempts must be at least 1, not {attempts!r}")
    for attempt in range(1, attempts):
        try:
            return work()
        except VersionConflict:
            # By chance, or those who were in each other's way would meet again.
            time.sleep(min(delay * 2 ** (attempt - 1), 1.0) * random.uniform(0.5, 1.5))
    return work()
