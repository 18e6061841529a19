"""Settings that somebody else changes: with the bare client library, connected as the adapter connects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from messaging.config import build_options, parse_url
from messaging.plan import Part
from messaging.topology import NativeOptions
from messaging_contract.conditions import configure_kafka

Change = Callable[[Part, str], AbstractContextManager[str | None]]
"""While it lasts, that setting of that part, which holds no message, is another one on the broker.

Gives the name by which that is to be told. None for a setting that cannot be changed, or that this broker does not
keep: its own client does not show it either.
"""


@dataclass(frozen=True)
class Drift:
    """How settings are changed, and what a queue is declared with so that it has as many as there are."""

    change: Change
    native: NativeOptions


_RABBITMQ: Mapping[str, Any] = {
    "x-queue-type": "classic",
    "x-overflow": "drop-head",
    "x-delivery-limit": 7,
    "x-single-active-consumer": None,
    "x-max-length": 7,
    "x-dead-letter-exchange": "amq.fanout",
    "x-dead-letter-routing-key": "elsewhere",
    "x-dead-letter-strategy": "at-most-once",
    "x-message-ttl": 61_000,
    "type": "headers",
    "alternate-exchange": "elsewhere",
}
_OF_QUORUM_QUEUES = ("x-delivery-limit", "x-dead-letter-strategy")
_KAFKA = {
    "share.auto.offset.reset": "latest",
    "share.isolation.level": "read_uncommitted",
    "cleanup.policy": "compact",
}
_SQS = {"RawMessageDelivery": "false"}
_SQS_FOR_EVER = ("FifoQueue", "FifoTopic", "ContentBasedDeduplication", "KmsMasterKeyId", "topic", "queue")


def drift_for(url: str) -> Drift | None:
    """How a setting is changed on the broker at `url`; None for a scheme not known here."""
    known: dict[str, tuple[Callable[[str], Change], dict[str, Any]]] = {
        "rabbitmq": (_rabbitmq, {"max_length": 100}),
        "kafka": (_kafka, {"retention": 30 * 86_400}),
        "sqs": (_sqs, {"visibility": 40, "retention": 86_400}),
    }
    scheme = url.partition("://")[0]
    if scheme not in known:
        return None
    change, native = known[scheme]
    return Drift(change(url), {scheme: native})


def _rabbitmq(url: str) -> Change:
    """What is there cannot be changed, only deleted and declared in another way."""

    @contextmanager
    def drift(part: Part, setting: str) -> Iterator[str | None]:
        import pika

        from messaging_rabbitmq import RabbitMQOptions

        if part.kind not in ("queue", "exchange"):
            yield None  # AMQP does not show bindings
            return
        options = build_options(RabbitMQOptions, parse_url(url).options, "rabbitmq")
        with pika.BlockingConnection([options.parameters(*address) for address in options.addresses()]) as connection:
            channel = connection.channel()

            def make(settings: Mapping[str, Any]) -> None:
                arguments = dict(settings)
                if part.kind == "queue":
                    channel.queue_delete(part.name)
                    channel.queue_declare(part.name, durable=True, arguments=arguments)
                else:
                    channel.exchange_delete(part.name)
                    channel.exchange_declare(part.name, arguments.pop("type"), durable=True, arguments=arguments)

            other = {**part.settings, setting: _RABBITMQ[setting]}
            if other[setting] is None:
                del other[setting]
            if other.get("x-queue-type") == "classic":
                other = {name: value for name, value in other.items() if name not in _OF_QUORUM_QUEUES}
            make(other)
            yield "pattern" if setting == "alternate-exchange" else setting  # what a marker is for
            make(part.settings)

    return drift


def _kafka(url: str) -> Change:
    @contextmanager
    def drift(part: Part, setting: str) -> Iterator[str | None]:
        kinds = {"topic": "TOPIC", "share group": "GROUP"}
        if part.kind not in kinds or setting in ("partitions", "replication.factor"):
            yield None  # a group's settings are our own words; partitions can only be added, which is no drift
            return
        configure = partial(configure_kafka, url, kinds[part.kind], part.name, setting)
        wanted = str(part.settings[setting])
        configure(_KAFKA.get(setting) or str(int(wanted) - 1000))
        yield setting
        configure(wanted)

    return drift


def _sqs(url: str) -> Change:
    @contextmanager
    def drift(part: Part, setting: str) -> Iterator[str | None]:
        from messaging_sqs import SQSOptions
        from messaging_sqs.clients import Clients
        from messaging_sqs.directory import Directory
        from messaging_sqs.topology import subscriptions

        if setting in _SQS_FOR_EVER:
            yield None
            return
        options = build_options(SQSOptions, parse_url(url).options, "sqs")
        clients = Clients(options, options.endpoints[0])
        directory = Directory(clients)

        def subscription() -> str:
            queue = directory.queue_attributes(directory.queue_url(part.settings["queue"]))["QueueArn"]
            return subscriptions(clients, directory.topic_arn(part.settings["topic"]))[queue]

        def read() -> str | None:
            found: str | None
            if part.kind == "SQS queue":
                found = directory.queue_attributes(directory.queue_url(part.name)).get(setting)
            else:
                asked = clients.sns.get_subscription_attributes(SubscriptionArn=subscription())
                found = asked["Attributes"].get(setting)
            return found or None

        def write(value: str) -> None:
            if part.kind == "SQS queue":
                address = directory.queue_url(part.name)
                policy = directory.queue_attributes(address).get("Policy")
                kept = {"Policy": policy} if policy else {}  # moto drops it when another attribute is set
                attributes: Any = {**kept, setting: value}
                clients.sqs.set_queue_attributes(QueueUrl=address, Attributes=attributes)
            else:
                clients.sns.set_subscription_attributes(
                    SubscriptionArn=subscription(), AttributeName=setting, AttributeValue=value
                )

        try:
            before = read()
            write(_other_on_aws(setting, before))
            yield setting if read() != before else None
            write(before or "")
        finally:
            clients.close()

    return drift


def _other_on_aws(setting: str, found: str | None) -> str:
    if setting == "Policy":
        return ""
    if setting == "RedrivePolicy":
        policy = json.loads(found or "{}")
        return json.dumps({**policy, "maxReceiveCount": int(policy["maxReceiveCount"]) - 1})
    if setting == "FilterPolicy":
        return '{"type": ["elsewhere"]}'
    return _SQS.get(setting) or str(int(found or 60) - 1)
