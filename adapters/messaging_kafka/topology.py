"""Declaring: topics, their dead-letter topics, and the position at which each subscription begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from confluent_kafka.admin import ResourceType

from messaging.errors import AuthenticationFailed, DestinationNotFound, TopologyError
from messaging.topology import Destination, Queue, Source, Topology, sources_of

from . import retry_topics
from .admin import Admin
from .groups import begin, group_of, queue_group
from .inspection import normal
from .parts import check, dead_letter_settings, delayed_settings, retry_settings, with_room
from .share_groups import ShareGroups, retry_name, share_group
from .topic_settings import CLEANUP, PARTITIONS, RETENTION, TopicSettings

log = logging.getLogger(__name__)


class Declarations:
    """Makes a cluster hold what a Topology says. Thread-safe: it keeps nothing; `shares` knows about share groups."""

    def __init__(self, admin: Admin, shares: ShareGroups) -> None:
        self._admin = admin
        self._shares = shares

    def apply(self, topology: Topology, create: bool) -> None:
        """Creates what is missing, or with `create=False` looks. See Driver.declare for what it raises."""
        wanted = check(topology, self._shares.uses)
        names = [name for destination in topology for name in self._topics(destination)]
        there = self._admin.partitions(names)
        for destination, settings in wanted:
            new = self._topic(destination.name, settings, there, create, fixed=destination.ordered)
            self._admin.learn_settings(destination.name)  # now, so that a publish waits for nothing
            partitions = there[destination.name] or 0
            for source in sources_of(destination):
                if source.dead_letter is not None:
                    own = dead_letter_settings(settings, partitions)
                    self._copies(source.dead_letter.name, destination.name, own, there, create)
                if self._shares.uses(source):
                    own = retry_settings(settings)
                    self._copies(retry_name(source.name), destination.name, own, there, create)
                    self._shares.begin(source, create)
                    continue
                if isinstance(destination, Queue):
                    self._shares.check_unused(source)
                for seconds in retry_topics.levels_of(source):
                    own = delayed_settings(settings, partitions, seconds)
                    self._retry_topic(
                        retry_topics.retry_topic(source.name, seconds), seconds, source, own, there, create
                    )
                begin(self._admin, source, new, create)

    def _topics(self, destination: Destination) -> list[str]:
        names = [destination.name]
        for source in sources_of(destination):
            if source.dead_letter is not None:
                names.append(source.dead_letter.name)
            if self._shares.uses(source):
                names.append(retry_name(source.name))
            names += [retry_topics.retry_topic(source.name, s) for s in retry_topics.levels_of(source)]
        return names

    def _retry_topic(
        self,
        name: str,
        seconds: int,
        source: Source,
        settings: TopicSettings,
        there: dict[str, int | None],
        create: bool,
    ) -> None:
        """Creates or checks one retry topic. Raises TopologyError for one that would lose what waits in it."""
        known = there[name] is not None
        self._copies(name, source.destination.name, settings, there, create)
        if not known:
            return
        keeps = self._admin.config(ResourceType.TOPIC, name).get(RETENTION) or ""
        if keeps.isdecimal() and int(keeps) <= seconds * 1000:
            raise TopologyError(
                f"retry topic {name!r} has {RETENTION}={keeps}, so it may delete messages that wait for {seconds} s: "
                f"give it {RETENTION} above {seconds * 1000} with kafka-configs.sh"
            )

    def _copies(
        self, name: str, original: str, settings: TopicSettings, there: dict[str, int | None], create: bool
    ) -> None:
        """Creates the topic for copies of what is in `original`, with room for the headers that a copy has more."""
        if there[name] is not None:
            self._check_config(name, {CLEANUP: settings.config[CLEANUP]})
            return
        if create:
            settings = with_room(settings, self._admin.largest(original))
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
        more = settings.partitions if count is not None and count < (settings.partitions or 0) else None
        if more is not None:
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
        wanted = settings.replication_factor
        if wanted is not None and (actual := self._admin.replication(name)) != wanted:
            raise TopologyError(
                f"topic {name!r} exists with replication_factor={actual} and is declared with {wanted}: declare what "
                f"is there, or change it with kafka-reassign-partitions.sh"
            )
        self._check_config(name, settings.config)
        if more is not None:  # last: it is never taken back
            self._admin.grow(name, more)
            there[name] = more
        return False

    def _check_config(self, name: str, declared: Mapping[str, str]) -> None:
        try:
            actual = self._admin.config(ResourceType.TOPIC, name)
        except AuthenticationFailed:
            if set(declared) == {CLEANUP}:
                return  # nothing special was asked for, and the right to use a topic is not the right to read settings
            raise
        for key, value in declared.items():
            if key not in actual:
                raise TopologyError(f"topic {name!r}: the broker knows no setting {key!r}")
            if normal(actual[key]) != normal(value):
                why = ", which may delete what nobody has read" if key == CLEANUP else ""
                raise TopologyError(
                    f"topic {name!r} exists with {key}={actual[key]}{why}, and is declared with {value}: declare what "
                    f"is there, or change it with kafka-configs.sh --alter --entity-type topics --entity-name {name} "
                    f"--add-config {key}={value}"
                )

    def remove(self, topology: Topology) -> None:
        """Deletes topics, dead-letter and retry topics, and groups. Missing ones are no error."""
        topics, groups = [], []
        retries = retry_topics.existing(self._admin, *(source.name for source in topology.sources))
        for destination in topology:
            topics.append(destination.name)
            for source in sources_of(destination):
                groups.append(group_of(source))
                declared = [retry_topics.retry_topic(source.name, s) for s in retry_topics.levels_of(source)]
                for name in {*declared, *retries[source.name].values()}:
                    topics.append(name)
                    groups.append(name)
                names = [source.name] if isinstance(destination, Queue) else []
                if source.dead_letter is not None:
                    topics.append(source.dead_letter.name)
                    names.append(source.dead_letter.name)
                for name in names:
                    topics.append(retry_name(name))
                    groups += [queue_group(name), share_group(name), retry_name(name)]
                    self._shares.forget(name)
        # First: what a share group has of a topic that is gone is not always found, and then nobody answers.
        self._admin.delete_groups(dict.fromkeys(groups))
        self._admin.delete_topics(dict.fromkeys(topics))
