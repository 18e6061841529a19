"""What queues, topics and subscriptions are made of on AWS, with every attribute.

An attribute that holds an ARN names the queue or topic here: the account is not known before there is a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from messaging.errors import ConfigurationError
from messaging.patterns import MATCH_ALL
from messaging.plan import Part
from messaging.topology import Queue, Source, Subscription, Topic, Topology, sources_of
from messaging_sqs.filters import filter_policy

QUEUE, TOPIC, SUBSCRIPTION = "SQS queue", "SNS topic", "SNS subscription"
"""The kinds of parts."""

REDRIVE, POLICY, FILTER, RAW, KMS = "RedrivePolicy", "Policy", "FilterPolicy", "RawMessageDelivery", "KmsMasterKeyId"
FIFO = "FifoQueue"
RETENTION = "MessageRetentionPeriod"

_MAX_RECEIVES = 1000
"""The broker's own dead-lettering, a backstop for consumers that die again and again: the most that SQS allows."""

_DEAD_LETTER_RETENTION = "1209600"
"""14 days, the most there is. A standard queue's dead letter keeps the time of its first send, so this must be long."""

_QUEUE_OPTIONS: Mapping[str, tuple[str, type]] = {
    "visibility": ("VisibilityTimeout", int),
    "retention": (RETENTION, int),
    "kms_key": (KMS, str),
    "max_receives": ("", int),
    "high_throughput": ("", bool),
}
_TOPIC_OPTIONS: Mapping[str, tuple[str, type]] = {"kms_key": (KMS, str)}

Name = Callable[[str, bool], str]
"""The name on AWS, from the portable one and whether it is ordered."""


def parts_of(topology: Topology, name_of: Name) -> list[Part]:
    """What declaring `topology` makes, in order. Raises ConfigurationError."""
    check_native(topology)
    found: list[Part] = []
    for destination in topology:
        if isinstance(destination, Topic):
            found.append(topic_part(destination, name_of))
        for source in sources_of(destination):
            dead_letters, queue = queue_parts(source, name_of)
            found += [queue] if dead_letters is None else [dead_letters, queue]
            if source.subscription is not None:
                found.append(subscription_part(source, name_of))
    return found


def queue_parts(source: Source, name_of: Name) -> tuple[Part | None, Part]:
    """The dead-letter queue and the queue behind one source. Raises ConfigurationError."""
    holder = source.subscription or source.destination
    options = _native(holder, _QUEUE_OPTIONS)
    dead_letters: Part | None = None
    settings: dict[str, Any] = {FIFO: "true"} if source.ordered else {}
    settings |= {aws: str(options[name]) for name, (aws, _) in _QUEUE_OPTIONS.items() if aws and name in options}
    if options.get("high_throughput"):
        if not source.ordered:
            raise ConfigurationError(f"{source}: native option 'high_throughput' is for ordered queues only")
        settings |= {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
    if source.dead_letter is not None:
        keep = {FIFO: "true"} if source.ordered else {}
        keep[RETENTION] = _DEAD_LETTER_RETENTION
        if "kms_key" in options:
            keep[KMS] = options["kms_key"]
        why = f"keeps what {source} rejected, as long as SQS keeps anything"
        dead_letters = Part(QUEUE, name_of(source.dead_letter.name, source.ordered), keep, why)
        receives = options.get("max_receives", _MAX_RECEIVES)
        settings[REDRIVE] = {"deadLetterTarget": dead_letters.name, "maxReceiveCount": receives}
    elif not source.name.endswith("--dlq"):
        settings[REDRIVE] = None
    if source.subscription is not None:
        settings[POLICY] = {"sendFromTopic": name_of(source.destination.name, source.ordered)}
    return dead_letters, Part(QUEUE, name_of(source.name, source.ordered), settings, _why(source))


def _why(source: Source) -> str:
    reasons = []
    if source.ordered:
        reasons.append("FIFO, the key as message group")
    if source.dead_letter is not None:
        reasons.append("the redrive policy is the backstop for consumers that die again and again")
    if source.subscription is not None:
        reasons.append("made with the policy that lets the topic send to it, so that nothing is lost meanwhile")
    return f"holds what waits for {source}" + "".join(f"; {reason}" for reason in reasons)


def topic_part(topic: Topic, name_of: Name) -> Part:
    """Raises ConfigurationError."""
    options = _native(topic, _TOPIC_OPTIONS)
    settings: dict[str, Any] = {KMS: options["kms_key"]} if "kms_key" in options else {}
    if topic.ordered:
        settings |= {"FifoTopic": "true", "ContentBasedDeduplication": "false"}
    return Part(TOPIC, name_of(topic.name, topic.ordered), settings, "takes what is published to the topic")


def subscription_part(source: Source, name_of: Name) -> Part:
    topic, queue = name_of(source.destination.name, source.ordered), name_of(source.name, source.ordered)
    settings = {"topic": topic, "queue": queue, RAW: "true"}
    policy = filter_policy(source.pattern)
    if policy is not None:
        settings[FILTER] = policy
    what = "every message" if source.pattern == MATCH_ALL else f"what can match {source.pattern}"
    why = f"gives the queue a copy of {what}, as it was published (raw)"
    return Part(SUBSCRIPTION, f"{topic} -> {queue}", settings, why)


def check_native(topology: Topology) -> None:
    """Raises ConfigurationError for a native option that this adapter does not have, before anything is made."""
    for destination in topology:
        if isinstance(destination, Queue):
            _native(destination, _QUEUE_OPTIONS)
        else:
            _native(destination, _TOPIC_OPTIONS)
            for subscription in destination.subscriptions:
                _native(subscription, _QUEUE_OPTIONS)


def native_visibility(source: Source) -> int | None:
    """The lease that a queue or subscription was declared with, in seconds."""
    holder = source.subscription or source.destination
    value = holder.native.get("sqs", {}).get("visibility")
    return None if value is None else int(value)


def _native(holder: Queue | Topic | Subscription, known: Mapping[str, tuple[str, type]]) -> Mapping[str, Any]:
    options = holder.native.get("sqs", {})
    for name, value in options.items():
        if name not in known:
            raise ConfigurationError(f"{holder}: unknown native option {name!r} for sqs; known: {', '.join(known)}")
        kind = known[name][1]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigurationError(f"{holder}: native option {name!r} for sqs must be {kind.__name__}, not {value!r}")
    return options
