"""Looks for queues, topics and subscriptions on AWS and compares them. Creates nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from messaging.errors import AuthenticationFailed, BrokerUnavailable, MessagingError
from messaging.plan import Difference, Finding, Part, different, missing
from messaging_sqs.clients import Clients
from messaging_sqs.directory import Directory
from messaging_sqs.errors import translate
from messaging_sqs.parts import FIFO, FILTER, KMS, POLICY, QUEUE, RAW, REDRIVE, RETENTION, TOPIC
from messaging_sqs.topology import allows, subscriptions

_ORDER = "whether it is ordered cannot be changed: declare it as it is, or let it be emptied and delete it first"
_ALLOW = "messaging topology apply lets the topic send to the queue"


def inspect(clients: Clients, directory: Directory, parts: Sequence[Part]) -> list[Finding]:
    """A finding for each part. Raises BrokerUnavailable, AuthenticationFailed."""
    return [_look(clients, directory, part) for part in parts]


def _look(clients: Clients, directory: Directory, part: Part) -> Finding:
    try:
        if part.kind == QUEUE:
            return _queue(directory, part)
        return _topic(clients, directory, part) if part.kind == TOPIC else _subscription(clients, directory, part)
    except (BrokerUnavailable, AuthenticationFailed):
        raise
    except MessagingError as error:
        return Finding(part, "unknown", (), str(error))


def _twin(name: str) -> str:
    """The name that it would have in the other order."""
    return name.removesuffix(".fifo") if name.endswith(".fifo") else f"{name}.fifo"


def _queue(directory: Directory, part: Part) -> Finding:
    url = directory.find_queue(part.name)
    if url is None:
        if directory.find_queue(_twin(part.name)) is None:
            return missing(part)
        return _other_order(part, FIFO)
    there = directory.queue_attributes(url)
    differences = []
    for name, wanted in part.settings.items():
        found: Any = there.get(name)
        if name == POLICY:
            arn = directory.find_topic(wanted["sendFromTopic"])
            if arn is None or not allows(json.loads(found or "{}"), arn):
                differences.append(Difference(name, None, wanted))
            continue
        if name == REDRIVE:
            found = _redrive(found)
        if found is None and name in (RETENTION, FIFO):
            continue  # AWS always tells; an emulator may not
        if found != wanted and not _kept_longer(part, name, found):
            differences.append(Difference(name, found, wanted))
    return different(part, differences, _way_out(url, differences))


def _redrive(text: str | None) -> dict[str, Any] | None:
    """As it is in a part: by the queue's name."""
    if not text:
        return None
    policy = json.loads(text)
    target = str(policy.get("deadLetterTargetArn", "")).rpartition(":")[2]
    return {"deadLetterTarget": target, "maxReceiveCount": int(policy.get("maxReceiveCount", 0))}


def _kept_longer(part: Part, name: str, found: Any) -> bool:
    """A dead-letter queue is the one kind of queue that has no word about a redrive policy; longer is fine there."""
    return name == RETENTION and REDRIVE not in part.settings and int(found) >= int(part.settings[name])


def _way_out(url: str, differences: Sequence[Difference]) -> str:
    changes = {d.setting: d.wanted for d in differences if d.setting not in (POLICY, REDRIVE)}
    ways = []
    if changes:
        ways.append(
            f"declare what is there, or: aws sqs set-queue-attributes --queue-url {url} "
            f"--attributes '{json.dumps(changes)}'"
        )
    if any(d.setting == REDRIVE for d in differences):
        ways.append(
            f"declare what is there, or change {REDRIVE} of {url} with aws sqs set-queue-attributes; what waits in the "
            f"old dead-letter queue stays there"
        )
    if any(d.setting == POLICY for d in differences):
        ways.append(_ALLOW)
    return "; ".join(ways)


def _other_order(part: Part, setting: str) -> Finding:
    ordered = part.name.endswith(".fifo")
    told = Difference(setting, "false" if ordered else "true", "true" if ordered else "false")
    return different(part, [told], _ORDER)


def _topic(clients: Clients, directory: Directory, part: Part) -> Finding:
    arn = directory.find_topic(part.name)
    if arn is None:
        if directory.find_topic(_twin(part.name)) is None:
            return missing(part)
        return _other_order(part, "FifoTopic")
    try:
        there: Mapping[str, str] = clients.sns.get_topic_attributes(TopicArn=arn)["Attributes"]
    except Exception as error:
        raise translate(error, f"look at SNS topic {part.name!r}") from error
    differences = [
        Difference(name, there.get(name), wanted)
        for name, wanted in part.settings.items()
        if there.get(name) != wanted and (name in there or name == KMS)
    ]
    return different(part, differences, f"declare what is there, or: aws sns set-topic-attributes --topic-arn {arn}")


def _subscription(clients: Clients, directory: Directory, part: Part) -> Finding:
    topic = directory.find_topic(part.settings["topic"])
    url = directory.find_queue(part.settings["queue"])
    if topic is None or url is None:
        return missing(part)
    arn = subscriptions(clients, topic).get(directory.queue_attributes(url)["QueueArn"])
    if arn is None:
        return missing(part)
    try:
        there = clients.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    except Exception as error:
        raise translate(error, f"look at subscription {part.name!r}") from error
    differences = []
    raw = there.get(RAW, "false").lower()
    if raw != part.settings[RAW]:
        differences.append(Difference(RAW, raw, part.settings[RAW]))
    found, wanted = there.get(FILTER) or None, part.settings.get(FILTER)
    if json.loads(found or "{}") != json.loads(wanted or "{}"):
        differences.append(Difference(FILTER, found, wanted))
    way_out = (
        f"what waits was chosen by what is there: declare that, choose another group, or: aws sns "
        f"set-subscription-attributes --subscription-arn {arn}"
    )
    return different(part, differences, way_out)
