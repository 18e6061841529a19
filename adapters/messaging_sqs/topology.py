"""Makes, checks and deletes queues, topics and subscriptions on AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from messaging.errors import DestinationNotFound, TopologyError
from messaging.topology import Source, Subscription, Topic, Topology, sources_of
from messaging_sqs.clients import Clients
from messaging_sqs.directory import Directory
from messaging_sqs.errors import MISSING, code_of, translate
from messaging_sqs.naming import queue_name
from messaging_sqs.parts import FIFO, FILTER, POLICY, RAW, REDRIVE, queue_parts, subscription_part, topic_part

_POLICY_VERSION = "2012-10-17"


class TopologyBuilder:
    """Carries out declarations. Every method may be called from any thread; several may run at once."""

    def __init__(self, clients: Clients, directory: Directory, prefix: str) -> None:
        self._clients = clients
        self._directory = directory
        self._prefix = prefix

    def declare(self, topology: Topology, create: bool) -> None:
        """As `Driver.declare`."""
        for destination in topology:
            if isinstance(destination, Topic):
                self._declare_topic(destination, create)
            else:
                self._declare_queue(Source(destination), create)

    def delete(self, topology: Topology) -> None:
        """As `Driver.delete`. Deleting a topic deletes its subscriptions."""
        for destination in topology:
            if isinstance(destination, Topic):
                self._delete_topic(destination)
            for source in sources_of(destination):
                self._delete_queue(self.name_of(source.name, source.ordered))
                if source.dead_letter is not None:
                    self._delete_queue(self.name_of(source.dead_letter.name, source.ordered))

    def name_of(self, name: str, ordered: bool) -> str:
        """The name on AWS."""
        return queue_name(name, ordered, self._prefix)

    def _declare_queue(self, source: Source, create: bool, policy: str = "") -> str:
        """Makes sure of a queue and its dead-letter queue; returns its URL. policy: of the queue, if it is made."""
        dead_letters, part = queue_parts(source, self.name_of)
        if not create and self._directory.find_queue(part.name) is None:  # before its dead-letter queue is missed
            raise self._missing(part.name, source.name, source.ordered)
        attributes: dict[str, Any] = {k: v for k, v in part.settings.items() if k not in (POLICY, FIFO)}
        if dead_letters is not None:
            assert source.dead_letter is not None
            keep = {k: v for k, v in dead_letters.settings.items() if k != FIFO}
            url = self._find_or_create(dead_letters.name, source.dead_letter.name, source.ordered, keep, create, {})
            arn = self._directory.queue_attributes(url)["QueueArn"]
            receives = part.settings[REDRIVE]["maxReceiveCount"]
            attributes[REDRIVE] = {"deadLetterTargetArn": arn, "maxReceiveCount": receives}
        wanted = {k: json.dumps(v) if k == REDRIVE else v for k, v in attributes.items() if v is not None}
        if policy:
            wanted[POLICY] = policy
        return self._find_or_create(part.name, source.name, source.ordered, wanted, create, attributes)

    def _find_or_create(
        self,
        name: str,
        portable: str,
        ordered: bool,
        attributes: Mapping[str, str],
        create: bool,
        checked: Mapping[str, Any],
    ) -> str:
        url = self._directory.find_queue(name)
        if url is not None:
            _compare(name, self._directory.queue_attributes(url), checked)
            return url
        if not create or self._directory.find_queue(self.name_of(portable, not ordered)) is not None:
            raise self._missing(name, portable, ordered)
        try:
            wanted = {**attributes, "FifoQueue": "true"} if ordered else dict(attributes)
            url = self._clients.control.create_queue(QueueName=name, Attributes=wanted)["QueueUrl"]  # type: ignore[arg-type]
        except Exception as error:
            if code_of(error) in ("QueueNameExists", "QueueAlreadyExists"):
                # Somebody else made it just now.
                url = self._directory.queue_url(name)
                _compare(name, self._directory.queue_attributes(url), checked)
                return url
            raise translate(error, f"create SQS queue {name!r}") from error
        self._directory.learn_queue(name, url)
        return url

    def _missing(self, name: str, portable: str, ordered: bool) -> TopologyError:
        """Why there is no such queue: it is not made yet, or it was made in the other order."""
        twin = self.name_of(portable, not ordered)
        if self._directory.find_queue(twin) is not None:
            return _differs(name, f"it exists as {twin!r}, {'not ordered' if ordered else 'ordered'}")
        return DestinationNotFound(f"SQS queue {name!r} does not exist, and creating is switched off")

    def _declare_topic(self, topic: Topic, create: bool) -> None:
        part = topic_part(topic, self.name_of)
        name = part.name
        arn = self._directory.find_topic(name)
        if arn is None:
            twin = self.name_of(topic.name, not topic.ordered)
            if self._directory.find_topic(twin) is not None:
                raise _differs(name, f"it exists as {twin!r}, {'not ordered' if topic.ordered else 'ordered'}")
            if not create:
                raise DestinationNotFound(f"SNS topic {name!r} does not exist, and creating is switched off")
            try:
                arn = self._clients.sns.create_topic(Name=name, Attributes=dict(part.settings))["TopicArn"]
            except Exception as error:
                raise translate(error, f"create SNS topic {name!r}") from error
            self._directory.learn_topic(name, arn)
        subscribed = subscriptions(self._clients, arn) if topic.subscriptions else {}
        for subscription in topic.subscriptions:
            self._declare_subscription(topic, subscription, arn, subscribed, create)

    def _declare_subscription(
        self, topic: Topic, subscription: Subscription, topic_arn: str, subscribed: Mapping[str, str], create: bool
    ) -> None:
        source = Source(topic, subscription)
        name = self.name_of(source.name, source.ordered)
        # A queue is made with its policy: one that is set later takes AWS a while, and loses what SNS sends meanwhile.
        queue_arn = ":".join([*topic_arn.replace(":sns:", ":sqs:", 1).split(":")[:-1], name])
        statements = [_statement(queue_arn, topic_arn)]
        url = self._declare_queue(source, create, json.dumps({"Version": _POLICY_VERSION, "Statement": statements}))
        attributes = self._directory.queue_attributes(url)
        queue_arn = attributes["QueueArn"]
        part = subscription_part(source, self.name_of)
        sns = self._clients.sns
        try:
            known = subscribed.get(queue_arn)
            if known is not None:
                there = sns.get_subscription_attributes(SubscriptionArn=known)["Attributes"]
                self._compare_subscription(source, there, part.settings.get(FILTER))
            elif not create:
                raise DestinationNotFound(
                    f"{source}: SQS queue {queue_arn} is not subscribed to {topic_arn}, and creating is switched off"
                )
            if create:
                self._allow(url, attributes, topic_arn)
            if known is None:
                wanted = {name: part.settings[name] for name in (RAW, FILTER) if name in part.settings}
                sns.subscribe(
                    TopicArn=topic_arn,
                    Protocol="sqs",
                    Endpoint=queue_arn,
                    Attributes=wanted,
                    ReturnSubscriptionArn=True,
                )
        except Exception as error:
            raise translate(error, f"subscribe {queue_arn} to {topic_arn}") from error

    def _compare_subscription(self, source: Source, there: Mapping[str, str], policy: str | None) -> None:
        if there.get("RawMessageDelivery", "false").lower() != "true":
            raise _differs(source.name, "its SNS subscription has RawMessageDelivery off")
        text = there.get("FilterPolicy") or "{}"
        found, wanted = json.loads(text), json.loads(policy or "{}")
        if found != wanted:
            raise _differs(source.name, f"its SNS filter policy is {text}, not {policy} (pattern {source.pattern!r})")

    def _allow(self, url: str, attributes: Mapping[str, str], topic_arn: str) -> None:
        """Lets the topic send to the queue, beside whatever else its policy says."""
        policy = json.loads(attributes.get("Policy") or "{}") or {"Version": _POLICY_VERSION}
        statement = _statement(attributes["QueueArn"], topic_arn)
        statements = policy.setdefault("Statement", [])
        if not isinstance(statements, list):
            statements = policy["Statement"] = [statements]
        if allows(policy, topic_arn):
            return
        statements[:] = [s for s in statements if s.get("Sid") != "messaging"] + [statement]
        self._clients.control.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})

    def _delete_topic(self, topic: Topic) -> None:
        name = self.name_of(topic.name, topic.ordered)
        arn = self._directory.find_topic(name)
        if arn is None:
            return
        sns = self._clients.sns
        try:
            # AWS drops subscriptions with their topic; emulators keep them, and a topic of that name finds them again.
            for subscription in subscriptions(self._clients, arn).values():
                sns.unsubscribe(SubscriptionArn=subscription)
            sns.delete_topic(TopicArn=arn)
        except Exception as error:
            if code_of(error) not in MISSING:
                raise translate(error, f"delete SNS topic {name!r}") from error
        self._directory.forget(name)

    def _delete_queue(self, name: str) -> None:
        url = self._directory.find_queue(name)
        if url is None:
            return
        try:
            self._clients.control.delete_queue(QueueUrl=url)
        except Exception as error:
            if code_of(error) not in MISSING:
                raise translate(error, f"delete SQS queue {name!r}") from error
        self._directory.forget(name)


def _statement(queue_arn: str, topic_arn: str) -> dict[str, Any]:
    """Lets the topic send to the queue."""
    return {
        "Sid": "messaging",
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
    }


def subscriptions(clients: Clients, topic_arn: str) -> dict[str, str]:
    """The subscription ARN for each queue ARN that is subscribed to a topic."""
    try:
        pages = clients.sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic_arn)
        return {
            s["Endpoint"]: s["SubscriptionArn"]
            for page in pages
            for s in page.get("Subscriptions", [])
            if s.get("Protocol") == "sqs"
        }
    except Exception as error:
        raise translate(error, f"look at the subscriptions of {topic_arn}") from error


def allows(policy: Mapping[str, Any], topic_arn: str) -> bool:
    """Whether a queue's policy lets the topic send to it, in our words."""
    statements = policy.get("Statement", [])
    condition = {"ArnEquals": {"aws:SourceArn": topic_arn}}
    several = statements if isinstance(statements, list) else [statements]
    return any(s.get("Condition") == condition and s.get("Effect") == "Allow" for s in several)


def _compare(name: str, there: Mapping[str, str], wanted: Mapping[str, Any]) -> None:
    for attribute, value in wanted.items():
        found: Any = there.get(attribute)
        if attribute == "RedrivePolicy":
            found = json.loads(found) if found else None
            if found is not None:
                found = {k: int(v) if k == "maxReceiveCount" else v for k, v in found.items()}
        if found is None and attribute == "MessageRetentionPeriod":
            # AWS always tells; an emulator that does not, keeps messages for ever.
            continue
        if found != value:
            raise _differs(name, f"its {attribute} is {found}, not {value}")


def _differs(name: str, how: str) -> TopologyError:
    return TopologyError(
        f"{name!r} is declared differently from what is there: {how}; declare it as it is there, or delete it first"
    )
