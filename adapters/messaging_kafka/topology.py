"""Declaring: topics, their dead-letter topics, and the position at which each subscription begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from confluent_kafka.admin import ResourceType

from messaging.errors import DestinationNotFound, TopologyError
from messaging.topology import Destination, Queue, Topic, Topology, sources_of

from .admin import Admin
from .groups import begin, group_of, queue_group
from .share_groups import ShareGroups, retry_name, share_group
from .topic_settings import PARTITIONS, TopicSettings, check_subscription

log = logging.getLogger(__name__)

DEAD_LETTERS = "--dlq"

_LARGEST = "max.message.bytes"
_RETENTION = "retention.ms"
_USUAL_RETENTION_MS = 7 * 24 * 3600 * 1000
_MORE_HEADERS = 16_384
"""Bytes, rounded up generously: the reason of a dead letter is the longest, with up to 4000."""


class Declarations:
    """Makes a cluster hold what a Topology says. Thread-safe: it keeps nothing; `shares` knows about share groups."""

    def __init__(self, admin: Admin, shares: ShareGroups) -> None:
        self._admin = admin
        self._shares = shares

    def apply(self, topology: Topology, create: bool) -> None:
        """Creates what is missing, or with `create=False` looks. See Driver.declare for what it raises."""
        wanted = [(destination, TopicSettings.of(destination)) for destination in topology]
        for destination in topology:
            for subscription in destination.subscriptions if isinstance(destination, Topic) else ():
                check_subscription(subscription)
        names = [name for destination in topology for name in self._topics(destination)]
        there = self._admin.partitions(names)
        for destination, settings in wanted:
            new = self._topic(destination.name, settings, there, create, fixed=destination.ordered)
            self._admin.learn_settings(destination.name)  # now, so that a publish waits for nothing
            partitions = there[destination.name] or 0
            for source in sources_of(destination):
                if source.dead_letter is not None:
                    # As many partitions as the source, so that a key finds its place again.
                    own = TopicSettings(partitions, settings.replication_factor, _kept_longer(settings))
                    self._copies(source.dead_letter.name, destination.name, own, there, create)
                if self._shares.uses(source):
                    own = TopicSettings(None, settings.replication_factor, _kept_longer(settings))
                    self._copies(retry_name(source.name), destination.name, own, there, create)
                    self._shares.begin(source, create)
                    continue
                if isinstance(destination, Queue):
                    self._shares.check_unused(source)
                begin(self._admin, source, new, create)

    def _topics(self, destination: Destination) -> list[str]:
        names = [destination.name]
        for source in sources_of(destination):
            if source.dead_letter is not None:
                names.append(source.dead_letter.name)
            if self._shares.uses(source):
                names.append(retry_name(source.name))
        return names

    def _copies(
        self, name: str, original: str, settings: TopicSettings, there: dict[str, int | None], create: bool
    ) -> None:
        """Creates the topic for copies of what is in `original`, with room for the headers that a copy has more."""
        if there[name] is not None:
            return
        if create and (limit := self._admin.config(ResourceType.TOPIC, original).get(_LARGEST)) and limit.isdigit():
            settings = replace(settings, config={**settings.config, _LARGEST: str(int(limit) + _MORE_HEADERS)})
        self._topic(name, settings, there, create)

    def _topic(
        self, name: str, settings: TopicSettings, there: dict[str, int | None], create: bool, fixed: bool = False
    ) -> bool:
        """Creates or checks one topic. Returns whether it was created; `there` then has its partitions.

        fixed: it does not grow, since its keys would move to other partitions and overtake what is in theirs.
        """
        count = there[name]
        if count is None:
            if not create:
                raise DestinationNotFound(f"topic {name!r} does not exist: declare it with create=True, or create it")
            partitions = settings.partitions or PARTITIONS
            made = self._admin.create(name, partitions, settings.replication_factor or -1, settings.config)
            there[name] = partitions if made else self._admin.require(name)
            if made:
                return True
            count = there[name]
        if settings.partitions is not None and count is not None and count < settings.partitions:
            if fixed:
                raise TopologyError(
                    f"topic {name!r} is ordered and has {count} partitions, and {settings.partitions} are declared: "
                    f"more would move keys away from what waits in their partition. Declare {count}; or let it be "
                    f"emptied and run kafka-topics.sh --alter --topic {name} --partitions {settings.partitions}"
                )
            if not create:
                raise TopologyError(
                    f"topic {name!r} has {count} partitions and {settings.partitions} are declared: declare it with "
                    f"create=True, which adds them, or declare {count}"
                )
            self._admin.grow(name, settings.partitions)
            there[name] = settings.partitions
        wanted = settings.replication_factor
        if wanted is not None and (actual := self._admin.replication(name)) != wanted:
            raise TopologyError(
                f"topic {name!r} exists with replication_factor={actual} and is declared with {wanted}: declare what "
                f"is there, or change it with kafka-reassign-partitions.sh"
            )
        if settings.config:
            self._check_config(name, settings.config)
        return False

    def _check_config(self, name: str, declared: Mapping[str, str]) -> None:
        actual = self._admin.config(ResourceType.TOPIC, name)
        for key, value in declared.items():
            if key not in actual:
                raise TopologyError(f"topic {name!r}: the broker knows no setting {key!r}")
            if _normal(actual[key]) != _normal(value):
                raise TopologyError(
                    f"topic {name!r} exists with {key}={actual[key]} and is declared with {value}: declare what is "
                    f"there, or change it with kafka-configs.sh --alter --entity-type topics --entity-name {name} "
                    f"--add-config {key}={value}"
                )

    def remove(self, topology: Topology) -> None:
        """Deletes topics, dead-letter and retry topics, and groups. Missing ones are no error."""
        topics, groups = [], []
        for destination in topology:
            topics.append(destination.name)
            for source in sources_of(destination):
                groups.append(group_of(source))
                names = [source.name] if isinstance(destination, Queue) else []
                if not source.name.endswith(DEAD_LETTERS):
                    topics.append(source.name + DEAD_LETTERS)
                    names.append(source.name + DEAD_LETTERS)
                for name in names:
                    topics.append(retry_name(name))
                    groups += [queue_group(name), share_group(name), retry_name(name)]
                    self._shares.forget(name)
        # First: what a share group has of a topic that is gone is not always found, and then nobody answers.
        self._admin.delete_groups(dict.fromkeys(groups))
        self._admin.delete_topics(dict.fromkeys(topics))


def _normal(value: str | None) -> str:
    return ",".join(sorted(part.strip() for part in (value or "").split(",")))


def _kept_longer(settings: TopicSettings) -> dict[str, str]:
    """The retention of a topic for copies, when the original's is longer than Kafka's own, which it has otherwise."""
    declared = settings.config.get(_RETENTION, "")
    if declared == "-1" or (declared.isdecimal() and int(declared) > _USUAL_RETENTION_MS):
        return {_RETENTION: declared}
    return {}
