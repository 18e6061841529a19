"""Consumer groups: their names, where they begin, and how far they are."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from messaging.driver import Replay
from messaging.errors import DestinationNotFound, TopologyError
from messaging.topology import Queue, Source

from .admin import Admin, Offsets
from .settled_ahead import decode

ORDERED, UNORDERED = "ordered", "unordered"


def order_mark(source: Source) -> str:
    """What is written beside the offsets of `source`, so that it is not used with the other kind of order."""
    return ORDERED if source.ordered else UNORDERED


def queue_group(queue: str) -> str:
    """The consumer group that reads a queue."""
    return f"{queue}--queue"


def group_of(source: Source) -> str:
    """The consumer group that reads `source`: the subscription's name, or `<queue>--queue`."""
    return queue_group(source.name) if isinstance(source.destination, Queue) else source.name


def begin(admin: Admin, source: Source, new_topic: bool, create: bool) -> None:
    """Fixes where a source begins: a queue with what is there, a subscription behind it (at 0 in a new topic).

    A group that has committed anything is left alone, and so is one with members. Partitions that are added later
    are read from their beginning (auto.offset.reset=earliest). Raises TopologyError when the group is used with
    the other kind of order: that is remembered in its commits.
    """
    topic, group, mark = source.destination.name, group_of(source), order_mark(source)
    queue = isinstance(source.destination, Queue)
    if _has_begun(admin, source):
        return
    if not create:
        if queue:
            return
        raise DestinationNotFound(
            f"{source} does not exist (group {group!r} has no position): declare it with create=True"
        )
    ends = admin.ends(topic)
    starts = dict.fromkeys(ends, 0) if new_topic else ends
    if queue and not new_topic:
        starts = admin.offsets(topic, OffsetSpec.earliest(), len(ends))
    # Asked again, after the ends: who declares the same at this moment and is done has published nothing below them.
    if not _has_begun(admin, source):
        admin.commit(group, topic, starts, mark)


def _has_begun(admin: Admin, source: Source) -> bool:
    """Whether its group has committed anything. Raises TopologyError when that was with the other kind of order."""
    marks, mark = admin.commit_marks(group_of(source), source.destination.name), order_mark(source)
    known = marks & {ORDERED, UNORDERED}
    if known and mark not in known:
        raise TopologyError(
            f"{source} exists and is {known.pop()}, and is declared {mark}: declare it as it is, or delete it first"
        )
    return bool(marks)


def lag_of(admin: Admin, group: str, topic: str) -> int:
    """Messages between the group's committed positions and the ends, without those that are settled already."""
    commits = {p.partition: p for p in admin.commits(group, topic)}
    ends = admin.ends(topic)
    starts = admin.offsets(topic, OffsetSpec.earliest(), len(ends))
    lag = 0
    for partition, end in ends.items():
        commit = commits.get(partition, TopicPartition(topic, partition, 0))
        begin = max(commit.offset, starts[partition])
        settled = sum(begin <= offset < end for offset in decode(commit.metadata, commit.offset))
        lag += max(end - begin - settled, 0)
    return lag


def replay_positions(admin: Admin, topic: str, since: Replay) -> Offsets:
    """The offset in each partition that `since` means. Raises TopologyError for a partition that is not there."""
    if isinstance(since, Mapping):
        missing = set(since) - set(range(admin.require(topic)))
        if missing:
            raise TopologyError(f"topic {topic!r} has no partitions {sorted(missing)}")
        return dict(since)
    if isinstance(since, str):
        return admin.offsets(topic, OffsetSpec.earliest())
    ends = admin.ends(topic)
    found = admin.offsets(topic, OffsetSpec.for_timestamp(int(since * 1000)), len(ends))
    return {p: ends[p] if offset < 0 else offset for p, offset in found.items()}
