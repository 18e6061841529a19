"""What the settings of a RabbitMQ do not uphold: what AMQP shows, and what the management API tells if it answers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from pika import exceptions

from messaging.concerns import Concern, unseen
from messaging.errors import BrokerUnavailable
from messaging.plan import Part
from messaging_rabbitmq.failures import PRECONDITION, REFUSED, channel_failure
from messaging_rabbitmq.flow import Steps
from messaging_rabbitmq.link import Link
from messaging_rabbitmq.management import Management, NotAnswered
from messaging_rabbitmq.options import RabbitMQOptions
from messaging_rabbitmq.parts import QUEUE, Version
from messaging_rabbitmq.policies import harmful

_PROBE_BYTES = 16 * 1024 * 1024
"""As much as 4.x takes by default. Older ones take more, which nobody should send just to see."""
_TOO_LARGE = re.compile(r"larger than configured max size (\d+)")
_BLOCKED = "the broker takes no messages: every publish waits, and fails at its deadline; clauses cannot hold meanwhile"

_SECONDS, _LARGE_SECONDS = 5.0, 30.0
"""How long the answer to a small and to a large message may take."""


def concerns(options: RabbitMQOptions, version: Version, parts: Sequence[Part]) -> list[Concern]:
    """Of the cluster, the virtual host and those that are there of `parts`. Raises BrokerUnavailable."""
    management = Management(options)
    found = [*_nodes(management), *_policies(management, parts), *_replicas(management, parts)]
    if not any(concern.stops for concern in found):
        found += _probe(options, version)
    found.append(_timeout_untold(version))
    return found


def _nodes(management: Management) -> Iterator[Concern]:
    try:
        nodes = management.get("nodes")
    except NotAnswered as error:
        yield unseen(
            "the nodes",
            "alarms",
            str(error),
            "whether memory or disk is short is only seen when a publish is blocked",
            "rabbitmqctl list_alarms, or rabbitmq-diagnostics alarms",
        )
        return
    for node in nodes:
        for alarm, change in (
            ("mem_alarm", "let consumers catch up, add memory, or raise vm_memory_high_watermark"),
            ("disk_free_alarm", "free disk space, or lower disk_free_limit"),
        ):
            if node.get(alarm):
                yield Concern(f"node {node['name']!r}", alarm, "set", _BLOCKED, change, stops=True)
        if not node.get("running", True):
            yield Concern(
                f"node {node['name']!r}",
                "running",
                "false",
                "queues with a replica there have one less: with the majority of them gone they take and give nothing",
                "start it, or take it out with rabbitmqctl forget_cluster_node",
            )


def _policies(management: Management, parts: Sequence[Part]) -> list[Concern]:
    found: list[Concern] = []
    for path, operator in (("policies", False), ("operator-policies", True)):
        try:
            found += harmful(management.get(f"{path}/{management.vhost}"), parts, operator)
        except NotAnswered as error:
            found.append(
                unseen(
                    "the virtual host",
                    "operator policies" if operator else "policies",
                    str(error),
                    "a policy with message-ttl, expires, max-length or overflow that matches a queue loses messages",
                    f"rabbitmqctl list_{path.replace('-', '_')}",
                )
            )
    return found


def _replicas(management: Management, parts: Sequence[Part]) -> Iterator[Concern]:
    for part in parts:
        if part.kind != QUEUE or part.settings.get("x-queue-type") != "quorum" or part.on_demand:
            continue
        try:
            members: list[str] = (
                management.get(f"queues/{management.vhost}/{quote(part.name, safe='')}").get("members") or []
            )
        except NotAnswered:
            continue  # not there; that nobody answers was said already
        if len(members) == 1:
            yield Concern(
                str(part),
                "members",
                f"1 ({members[0]})",
                "a confirmed message is on one node only: it is lost with that node's disk, and cannot be had while "
                "the node is down",
                f"with at least three nodes: rabbitmq-queues add_member {part.name} NODE",
            )


def _probe(options: RabbitMQOptions, version: Version) -> Iterator[Concern]:
    """Sends a small and a large message that no queue takes: RabbitMQ looks at the size before it looks for a queue.

    On a connection of its own: one that is blocked answers nothing any more.
    """
    link = Link(options, "probe", _nothing_to_restore)
    link.start()
    try:
        yield from _largest(link, version)
    finally:
        link.close()


def _nothing_to_restore() -> Steps:
    yield from ()


def _largest(link: Link, version: Version) -> Iterator[Concern]:
    about, setting = "the broker", "max_message_size"
    change = f"max_message_size = {version.max_message_bytes} in rabbitmq.conf"
    size = min(_PROBE_BYTES, version.max_message_bytes)
    try:
        link.run(_publish_to_nobody(1), "publish a small message", _SECONDS)
        limit = link.run(_publish_to_nobody(size), "publish a large message", _LARGE_SECONDS)
    except BrokerUnavailable as error:
        if link.blocked:
            way_out = "rabbitmqctl list_alarms tells which node; free its memory or disk"
            yield Concern("the broker", "alarm", "it blocks connections that publish", _BLOCKED, way_out, stops=True)
        else:
            yield unseen(about, setting, str(error), "larger messages may be refused", change)
        return
    if limit is None:
        return
    why = f"a message up to {version.max_message_bytes} bytes, RabbitMQ's default, is sent and then refused"
    if limit:
        yield Concern(about, setting, f"{limit} bytes", why, change)
    else:
        yield unseen(about, setting, "this user may not publish to the default exchange", why, change)


def _publish_to_nobody(size: int) -> Steps:
    """Returns the limit that the broker names when that is too large, None when it is not, 0 when it is not told."""

    def request(channel: Any, reply: Any) -> None:
        channel.basic_publish("", f"anybroker-nobody-{uuid.uuid4().hex}", bytes(size))
        channel.basic_qos(prefetch_count=1, callback=reply)  # answered once the publish was looked at

    try:
        yield request
    except exceptions.ChannelClosedByBroker as error:
        told = _TOO_LARGE.search(error.reply_text)
        if error.reply_code == PRECONDITION and told is not None:
            return int(told[1])
        if error.reply_code == REFUSED:
            return 0
        raise channel_failure(error, "look for the largest message") from error
    return None


def _timeout_untold(version: Version) -> Concern:
    return unseen(
        "the broker",
        "consumer_timeout",
        "neither AMQP nor the management API tells it",
        "a message unsettled for longer, 30 minutes by default, closes the consumer's channel and comes again",
        "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'"
        + ("" if (version.major, version.minor) < (3, 12) else '; native={"rabbitmq": {"consumer_timeout": seconds}}'),
    )
