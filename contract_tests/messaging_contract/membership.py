"""Kafka's groups, which other brokers do not have.

Whether the consumers of one have their shares: until then a broker may take a message from one for another. And whether
one is still there: as long as it has a member it cannot be deleted, also when that has only just gone.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from messaging.config import build_options, parse_url
from messaging.names import SEPARATOR
from messaging.topology import Source
from messaging_contract.harness import Joined, Remains


def joined_for(url: str) -> Joined | None:
    """How to learn that on the broker at `url`; None where a consumer has its share as soon as it is there."""
    return _kafka(url) if url.startswith("kafka://") else None


def remains_for(url: str) -> Remains | None:
    """How to list what is left on the broker at `url`; None where what was deleted is gone."""
    return _groups_and_topics(url) if url.startswith("kafka://") else None


@cache
def _client(url: str) -> Any:
    from confluent_kafka.admin import AdminClient

    from messaging_kafka import KafkaOptions

    return AdminClient(build_options(KafkaOptions, parse_url(url).options, "kafka").client())


def _groups_and_topics(url: str) -> Remains:
    def remains(names: Collection[str]) -> set[str]:
        client = _client(url)
        there = {group.group_id for group in client.list_consumer_groups().result(20).valid}
        there |= set(client.list_topics(timeout=20).topics)
        return {name for name in names if name in there or any(each.startswith(name + SEPARATOR) for each in there)}

    return remains


def _kafka(url: str) -> Joined:
    def client() -> Any:
        return _client(url)

    def joined(source: Source, count: int) -> bool:
        from confluent_kafka import ConsumerGroupState

        from messaging_kafka.groups import group_of

        (future,) = client().describe_consumer_groups([group_of(source)]).values()
        group = future.result(20)
        if group.state is ConsumerGroupState.DEAD:
            return True  # there is none: a share group, which hands over nothing
        topic = source.destination.name
        partitions = len(client().list_topics(topic, 20).topics[topic].partitions)
        # Between the two steps of a cooperative rebalance a group is stable, too, but some partitions are nobody's.
        shared = sum(len(member.assignment.topic_partitions) for member in group.members)
        return group.state is ConsumerGroupState.STABLE and len(group.members) >= count and shared == partitions

    return joined
