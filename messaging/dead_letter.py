"""What a message looks like in a dead-letter queue: itself, with four headers that say where it came from and why."""

from __future__ import annotations

import time
from dataclasses import replace

from messaging.delivery import Delivery
from messaging.message import Message

SOURCE = "dead-letter-source"
REASON = "dead-letter-reason"
ATTEMPTS = "dead-letter-attempts"
TIME = "dead-letter-time"
_REASON_LENGTH = 1000
HEADERS = frozenset({SOURCE, REASON, ATTEMPTS, TIME})


def dead_letter_copy(delivery: Delivery, reason: str, now: float | None = None) -> Message:
    """Returns the message to put in the dead-letter queue: same id, key, body and headers, and no expiry.

    TIME is seconds since the epoch. A message that was dead-lettered before has its old four headers replaced.
    """
    about = {
        SOURCE: delivery.source.name,
        # Often the text of an exception: of any length, and of undecodable file names.
        REASON: str(reason)[:_REASON_LENGTH].encode(errors="backslashreplace").decode(),
        ATTEMPTS: str(delivery.attempt),
        TIME: f"{time.time() if now is None else now:.3f}",
    }
    return replace(delivery.message, headers={**delivery.headers, **about}, expires_at=None)
