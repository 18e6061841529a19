"""Names that are valid on every broker, and the names derived from them.

A portable name is letters and digits, separated by single `.`, `_` or `-`. Because `--` can never be part of a
name, joining names with it is injective: no two subscriptions share a queue, whatever they are called.
"""

from __future__ import annotations

import re

from messaging.errors import TopologyError

_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_MAX_NAME = 80
_RESERVED = frozenset({"dlq", "retry", "delay"})

SEPARATOR = "--"


def check_name(name: str, what: str) -> str:
    """Returns `name`; raises TopologyError when it is not portable. `what` is used in the text ("queue" ...)."""
    if not isinstance(name, str) or len(name) > _MAX_NAME or _NAME.fullmatch(name) is None:
        raise TopologyError(
            f"{name!r} is not a valid {what} name: use letters and digits separated by single '.', '_' or '-', "
            f"at most {_MAX_NAME} characters, so that it is valid on every broker"
        )
    if name in _RESERVED:
        raise TopologyError(f"{name!r} is reserved for derived queues: choose another {what} name")
    return name


def subscription_name(topic: str, group: str) -> str:
    """The name of the queue (RabbitMQ, SQS) or consumer group (Kafka) behind a subscription."""
    return f"{topic}{SEPARATOR}{group}"


def dead_letter_name(source: str) -> str:
    """The name of the dead-letter queue of a queue or subscription."""
    return f"{source}{SEPARATOR}dlq"


def check_dead_letter_name(name: str) -> str:
    """Returns `name`; raises TopologyError unless it is `<queue>--dlq` or `<topic>--<group>--dlq`."""
    source, _, dlq = name.rpartition(SEPARATOR)
    parts = source.split(SEPARATOR)
    if dlq != "dlq" or len(parts) > 2:
        raise TopologyError(f"{name!r} is not the name of a dead-letter queue: use '<queue>--dlq'")
    for part in parts:
        check_name(part, "queue")
    return name
