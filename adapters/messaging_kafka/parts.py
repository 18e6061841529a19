"""What queues, topics and subscriptions are made of on Kafka: topics and groups, with every setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from messaging.errors import ConfigurationError, UnsupportedCapability
from messaging.plan import Part
from messaging.topology import Destination, Queue, Source, Topic, Topology, sources_of

from .groups import group_of, order_mark
from .retry_topics import OPTION, levels_of, retry_topic
from .share_groups import retry_name, share_group
from .topic_settings import CLEANUP, PARTITIONS, RETENTION, TopicSettings, check_subscription

TOPIC, CONSUMER_GROUP, SHARE_GROUP = "topic", "consumer group", "share group"
"""The kinds of parts."""

COPIES = ("--dlq", "--retry")
"""How the topics end that hold copies of other topics' messages."""

LARGEST = "max.message.bytes"
PARTITION_COUNT, REPLICATION = "partitions", "replication.factor"
"""The settings of a topic that are not among its configuration."""

_USUAL_RETENTION_MS = 7 * 24 * 3600 * 1000
_MORE_HEADERS = 16_384
"""Bytes, rounded up generously: the reason of a dead letter is the longest, with up to 4000."""


def check(topology: Topology, shared: Callable[[Source], bool]) -> list[tuple[Destination, TopicSettings]]:
    """The settings of each queue and topic. shared: whether a source is read through a share group.

    Raises ConfigurationError for a wrong native option.
    """
    for destination in topology:
        for subscription in destination.subscriptions if isinstance(destination, Topic) else ():
            check_subscription(subscription)
        for source in sources_of(destination):
            if levels_of(source) and shared(source):
                raise ConfigurationError(
                    f"native kafka option {OPTION!r} of {source}: it is read by a share group, which copies what is "
                    f"nacked to {retry_name(source.name)!r} anyway: leave it out, or use queues=group"
                )
    return [(destination, TopicSettings.of(destination)) for destination in topology]


def check_delays(topology: Topology, delays: Sequence[float]) -> None:
    """Raises UnsupportedCapability for a retry that would wait in its own topic for longer than is declared for that.

    What is not declared, the cluster has its own word about: a consumer that nacks knows it, and so does `concerns`.
    """
    for destination in topology:
        config = TopicSettings.of(destination).config
        kept = config.get(RETENTION, "")
        if not kept.isdecimal() or "delete" not in config[CLEANUP]:
            continue
        for source in sources_of(destination):
            in_place = [delay for delay in delays if not any(level <= delay for level in levels_of(source))]
            if in_place and max(in_place) * 1000 > int(kept):
                raise UnsupportedCapability(
                    f"a retry of {source} after {max(in_place):g} s: topic {destination.name!r} keeps a message for "
                    f"{int(kept) / 1000:g} s; declare a longer retention, or shorter delays"
                )


def dead_letter_settings(settings: TopicSettings, partitions: int) -> TopicSettings:
    """Of a dead-letter topic. As many partitions as the source, so that a key finds its place again."""
    return TopicSettings(partitions, settings.replication_factor, _kept_longer(settings))


def retry_settings(settings: TopicSettings) -> TopicSettings:
    """Of the topic with copies that a share queue has beside its own."""
    return TopicSettings(None, settings.replication_factor, _kept_longer(settings))


def delayed_settings(settings: TopicSettings, partitions: int, seconds: int) -> TopicSettings:
    """Of a retry topic: it keeps records as long after their time as a source usually does."""
    least = _USUAL_RETENTION_MS + seconds * 1000
    longer = _kept_longer(settings).get(RETENTION, "")
    config = {CLEANUP: "delete", RETENTION: longer if longer == "-1" else str(max(int(longer or 0), least))}
    return TopicSettings(partitions, settings.replication_factor, config)


def with_room(settings: TopicSettings, limit: int) -> TopicSettings:
    """For copies of messages of up to `limit` bytes, with room for the headers that a copy has more."""
    return replace(settings, config={**settings.config, LARGEST: str(limit + _MORE_HEADERS)})


def _kept_longer(settings: TopicSettings) -> dict[str, str]:
    """A topic for copies keeps them as long as Kafka's own retention says, or the original's when that is longer."""
    declared = settings.config.get(RETENTION, "")
    if declared == "-1" or (declared.isdecimal() and int(declared) > _USUAL_RETENTION_MS):
        return {CLEANUP: "delete", RETENTION: declared}
    return {CLEANUP: "delete"}


def parts_of(
    topology: Topology, shared: Callable[[Source], bool], share_settings: Mapping[str, str], limit: int
) -> list[Part]:
    """What declaring `topology` makes, in order. shared: whether a source is read through a share group.

    share_settings: of a share group. limit: the cluster's max.message.bytes. Raises ConfigurationError.
    """
    found: list[Part] = []
    for destination, settings in check(topology, shared):
        found.append(_topic(destination.name, settings, _why(destination)))
        partitions = settings.partitions or PARTITIONS
        declared = settings.config.get(LARGEST, "")
        largest = int(declared) if declared.isdigit() else limit
        for source in sources_of(destination):
            if source.dead_letter is not None:
                own = with_room(dead_letter_settings(settings, partitions), largest)
                why = f"keeps what {source} rejected: written and confirmed before the source's position moves"
                found.append(_topic(source.dead_letter.name, own, why))
            if shared(source):
                own = with_room(retry_settings(settings), largest)
                why = "holds copies of what is retried later or handled for long: the broker's own delivery limit, "
                found.append(_topic(retry_name(source.name), own, why + "past which it drops a record, is never met"))
                why = (
                    "reads the queue from its beginning; keeps a record for one consumer as long as the cluster lets it"
                )
                found.append(Part(SHARE_GROUP, share_group(source.name), dict(share_settings), why))
            else:
                found.append(_group(source))
            for seconds in levels_of(source):
                own = with_room(delayed_settings(settings, partitions, seconds), largest)
                why = f"what {source} retries in {seconds} s waits here: all equally long, so the first is due first"
                found.append(_topic(retry_topic(source.name, seconds), own, why))
    return found


def _why(destination: Destination) -> str:
    if isinstance(destination, Queue):
        return "holds the queue; what was acknowledged stays until it is older than the retention"
    text = "holds the topic once, for all groups"
    return text + "; its partitions never grow, so that a key keeps its order" if destination.ordered else text


def _topic(name: str, settings: TopicSettings, why: str) -> Part:
    values: dict[str, Any] = {PARTITION_COUNT: settings.partitions or PARTITIONS}
    if settings.replication_factor is not None:
        values[REPLICATION] = settings.replication_factor
    return Part(TOPIC, name, {**values, **settings.config}, why)


def _group(source: Source) -> Part:
    queue = isinstance(source.destination, Queue)
    settings = {
        "topic": source.destination.name,
        "begins": "with what is there" if queue else "behind what is there",
        "order": order_mark(source),
    }
    why = "remembers how far it is: only what was acknowledged, without a gap, is passed"
    if source.ordered:
        why += "; a key is handled by one consumer, in order"
    return Part(CONSUMER_GROUP, group_of(source), settings, why)


def config_of(part: Part) -> dict[str, str]:
    """The settings of a topic that are its configuration."""
    return {name: value for name, value in part.settings.items() if name not in (PARTITION_COUNT, REPLICATION)}
