"""What the attributes of queues do not uphold, in words for who runs them: SQS has no settings but those of queues."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from messaging.concerns import Concern, unseen
from messaging.errors import BrokerUnavailable, MessagingError
from messaging.plan import Part
from messaging_sqs.directory import Directory
from messaging_sqs.options import MAX_VISIBILITY
from messaging_sqs.parts import KMS, QUEUE, REDRIVE, RETENTION, SUBSCRIPTION

Attributes = Mapping[str, str]

_SHORT_VISIBILITY = 10
_FEW_RECEIVES = 20
_DAY = 86_400
_AWS_KEY = "alias/aws/sqs"


def concerns(
    directory: Directory, parts: Sequence[Part], delays: Sequence[float], largest: int, has_sns: str | None
) -> list[Concern]:
    """Of those queues among `parts` that exist. largest: bytes that the adapter takes. has_sns: why topics are not had.

    Raises BrokerUnavailable.
    """
    found: list[Concern] = []
    if has_sns:
        found.append(unseen("SNS", "topics", has_sns, "topics are refused, queues are not touched by it"))
    subscribed = {part.settings["queue"] for part in parts if part.kind == SUBSCRIPTION}
    for name in dict.fromkeys(part.name for part in parts if part.kind == QUEUE):
        try:
            found += _queue(directory, name, delays, largest, name in subscribed)
        except BrokerUnavailable:
            raise
        except MessagingError as error:
            why = "its settings are not known; what else is not allowed shows in the clauses"
            allow = "allow sqs:GetQueueUrl and sqs:GetQueueAttributes"
            found.append(unseen(f"{QUEUE} {name!r}", "attributes", str(error), why, allow))
    return found


def _queue(directory: Directory, name: str, delays: Sequence[float], largest: int, subscribed: bool) -> list[Concern]:
    url = directory.find_queue(name)
    if url is None:
        return []
    about, there = f"{QUEUE} {name!r}", directory.queue_attributes(url)
    return [
        *_timing(about, url, there, max(delays, default=0.0)),
        *_size(about, url, there, largest),
        *_redrive(about, url, there, directory),
        *_encryption(about, url, there, subscribed),
    ]


def _timing(about: str, url: str, there: Attributes, longest: float) -> Iterator[Concern]:
    visibility = _number(there, "VisibilityTimeout")
    if visibility is not None and visibility < _SHORT_VISIBILITY:
        yield Concern(
            about,
            "VisibilityTimeout",
            f"{visibility} s",
            "consumers of this library ask for a lease of their own (visibility, 30 s), others get this one: a message "
            "handled for longer goes to a second consumer while the first is at work",
            _set(url, "VisibilityTimeout", 30),
        )
    kept = _number(there, RETENTION)
    if kept is not None and kept < max(_DAY, longest):
        # Dead letters and retries wait in the time that is left: standard queues count from the first send.
        reason = f", also one that waits for a retry (up to {longest:g} s)" if longest else ""
        yield Concern(
            about,
            RETENTION,
            f"{kept} s",
            f"a message that is not settled within that time is deleted{reason}",
            _set(url, RETENTION, 14 * _DAY),
        )
    delay = _number(there, "DelaySeconds")
    if delay:
        yield Concern(
            about,
            "DelaySeconds",
            f"{delay} s",
            "every message that is published without a delay of its own comes that much later",
            _set(url, "DelaySeconds", 0),
        )
    if longest > MAX_VISIBILITY:
        yield Concern(
            about,
            "retry delay",
            f"{longest:g} s",
            f"SQS keeps a message back for {MAX_VISIBILITY} s at most: longer retries are refused",
            "shorter delays",
        )


def _size(about: str, url: str, there: Attributes, largest: int) -> Iterator[Concern]:
    limit = _number(there, "MaximumMessageSize")
    if limit is not None and limit < largest:
        yield Concern(
            about,
            "MaximumMessageSize",
            f"{limit} bytes",
            f"a message above it, that the adapter takes (up to {largest} bytes), is sent and then refused; a "
            "subscription loses it, since SNS does not tell the publisher",
            f"connect with max_message_bytes={limit}, or {_set(url, 'MaximumMessageSize', largest)}",
        )


def _redrive(about: str, url: str, there: Attributes, directory: Directory) -> Iterator[Concern]:
    try:
        policy: Any = json.loads(there.get(REDRIVE) or "{}")
        receives = int(policy.get("maxReceiveCount", 0))
    except ValueError:
        return
    if 0 < receives < _FEW_RECEIVES:
        yield Concern(
            about,
            REDRIVE,
            f"maxReceiveCount is {receives}",
            "SQS itself moves a message that was received so often to the dead-letter queue, without a reason, though "
            "its retry policy has attempts left; every nack and every crash counts",
            f"raise maxReceiveCount above the attempts of every retry policy (this library sets 1000) of {url}",
        )
    target = str(policy.get("deadLetterTargetArn", "")).rpartition(":")[2]
    dead_letters = directory.find_queue(target) if target else None
    if dead_letters is None:
        if target:
            yield Concern(
                about,
                REDRIVE,
                f"its dead-letter queue {target!r} is not there",
                "what should be dead-lettered stays, and is received again and again",
                f"make {target!r}, or change the redrive policy of {url}",
            )
        return
    kept, letters = _number(there, RETENTION), _number(directory.queue_attributes(dead_letters), RETENTION)
    if kept is not None and letters is not None and letters < kept:
        yield Concern(
            about,
            REDRIVE,
            f"dead letters are kept {letters} s in {target!r}, messages {kept} s",
            "a dead letter keeps the time of its first send, so one that failed late is deleted at once",
            _set(dead_letters, RETENTION, 14 * _DAY),
        )


def _encryption(about: str, url: str, there: Attributes, subscribed: bool) -> Iterator[Concern]:
    key = there.get(KMS)
    if key and subscribed and key.endswith(_AWS_KEY):
        yield Concern(
            about,
            KMS,
            key,
            "SNS may not use that key, so what is published to the topic never arrives, and no publisher is told",
            "encrypt with SqsManagedSseEnabled, or with a key of your own whose policy lets sns.amazonaws.com use it",
        )
    elif not key and there.get("SqsManagedSseEnabled") == "false":
        yield Concern(
            about,
            "SqsManagedSseEnabled",
            "false",
            "messages are not encrypted at rest; nothing else depends on it",
            _set(url, "SqsManagedSseEnabled", "true"),
        )


def _set(url: str, name: str, value: object) -> str:
    return f"aws sqs set-queue-attributes --queue-url {url} --attributes {name}={value}"


def _number(there: Attributes, name: str) -> int | None:
    text = there.get(name) or ""
    return int(text) if text.isdecimal() else None
