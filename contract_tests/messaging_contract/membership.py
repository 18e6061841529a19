"""Whether the consumers of a group have their shares: until then a broker may take a message from one for another."""

from __future__ import annotations

from functools import cache
from typing import Any

from messaging.config import build_options, parse_url
from messaging.topology import Source
from messaging_contract.harness import Joined


def joined_for(url: str) -> Joined | None:
    """How to learn that on the broker at `url`; None where a consumer has its share as soon as it is there."""
    return _kafka(url) if url.startswith("kafka://") else None


def _kafka(url: str) -> Joined:
    @cache
    def client() -> Any:
        from confluent_kafka.admin import AdminClient

        from messaging_kafka import KafkaOptions

        return AdminClient(build_options(KafkaOptions, parse_url(url).options, "kafka").client())

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
