"""What a message looks like in a dead-letter queue: itself, with headers that say where it came from and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from messaging.delivery import Delivery
from messaging.message import Message
from messaging.rejection import Rejection

SOURCE = "dead-letter-source"
REASON = "dead-letter-reason"
ERROR = "dead-letter-error"
"""The type of the exception, where one is the reason."""
ATTEMPTS = "dead-letter-attempts"
TIME = "dead-letter-time"
"""When it was given up: seconds since the epoch."""
FIRST_TIME = "dead-letter-first-time"
"""When it failed first, where the worker that gave it up saw that: seconds since the epoch."""
HEADERS = frozenset({SOURCE, REASON, ERROR, ATTEMPTS, TIME, FIRST_TIME})

_REASON_LENGTH = 1000
_REASON_BYTES = 4096
"""RabbitMQ's headers travel in one frame: a reason as long as a stack trace must not keep the message from leaving."""


def dead_letter_copy(delivery: Delivery, why: Rejection, now: float | None = None) -> Message:
    """Returns the message to put in the dead-letter queue: same id, key, body and headers, and no expiry.

    What an earlier dead-lettering said of it is replaced.
    """
    about = {
        SOURCE: delivery.source.name,
        REASON: _text(why.reason),
        ATTEMPTS: str(delivery.attempt),
        TIME: _time(time.time() if now is None else now),
    }
    if why.error:
        about[ERROR] = _text(why.error)
    if why.first_failure is not None:
        about[FIRST_TIME] = _time(why.first_failure)
    return replace(delivery.message, headers={**without_story(delivery), **about}, expires_at=None)


def shorter_copies(copy: Message) -> Iterator[Message]:
    """Returns a dead-letter copy for a broker that has no room for all its headers: less and less is said of it.

    What the message itself holds counts more than why it is there. First the reason goes, which is the longest, then
    all but the source and the time, by which a redrive knows what came while it worked.
    """
    for kept in (HEADERS - {REASON}, {SOURCE, TIME}, {TIME}, frozenset()):
        headers = {name: value for name, value in copy.headers.items() if name not in HEADERS or name in kept}
        yield replace(copy, headers=headers)


def alive_again(letter: Delivery) -> Message:
    """Returns the message that `letter` was before it was dead-lettered."""
    return replace(letter.message, headers=without_story(letter))


def without_story(delivery: Delivery) -> dict[str, str]:
    """The headers of a message without those that dead-lettering put there."""
    return {name: value for name, value in delivery.headers.items() if name not in HEADERS}


def _text(text: str) -> str:
    """Often the text of an exception: of any length, and of undecodable file names."""
    valid = str(text)[:_REASON_LENGTH].encode(errors="backslashreplace")
    return valid[:_REASON_BYTES].decode(errors="ignore")


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"
