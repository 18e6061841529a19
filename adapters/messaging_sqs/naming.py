"""Names on AWS: of queues and topics, and message group ids."""

from __future__ import annotations

import hashlib
import re

_MAX_QUEUE = 80
_FIFO = ".fifo"
_TOKEN = re.compile(r"[!-~]{1,128}")
"""Group ids: up to 128 letters, digits and ASCII punctuation (SQS API reference, SendMessage)."""


def queue_name(name: str, ordered: bool, prefix: str = "") -> str:
    """The name on AWS of the queue or topic `name`: no dots, `.fifo` when ordered, at most 80 characters.

    Injective: portable names hold single separators only, so `__` and `---` can come from nowhere else. A name that is
    too long (a subscription's: topic, group and `--dlq`) ends in a hash of the whole.
    """
    text = prefix + name.replace(".", "__")
    room = _MAX_QUEUE - (len(_FIFO) if ordered else 0)
    if len(text) > room:
        digest = hashlib.sha256(text.encode()).hexdigest()[:20]
        text = f"{text[: room - 23]}---{digest}"
    return text + _FIFO if ordered else text


def group_id(key: str) -> str:
    """The message group of `key`. What AWS does not take is hashed; the key itself travels in the envelope."""
    return key if _TOKEN.fullmatch(key) else hashlib.sha256(key.encode()).hexdigest()
