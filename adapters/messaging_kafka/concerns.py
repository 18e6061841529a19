"""What the settings of a cluster and of its topics do not uphold, in words for who runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from confluent_kafka.admin import ResourceType

from messaging.concerns import Concern, unseen
from messaging.errors import DestinationNotFound, MessagingError
from messaging.names import SEPARATOR
from messaging.plan import Part

from .admin import DEFAULT_LIMIT, Admin
from .parts import LARGEST, TOPIC
from .topic_settings import CLEANUP, RETENTION

Settings = Mapping[str, str | None]

_OFFSETS_KEPT = 10_080
"""Minutes, Kafka's default."""
_MIN_IN_SYNC, _UNCLEAN = "min.insync.replicas", "unclean.leader.election.enable"


def concerns(admin: Admin, parts: Sequence[Part], delays: Sequence[float]) -> list[Concern]:
    """Of the cluster, and of those topics among `parts` that exist. Raises BrokerUnavailable."""
    longest = max(delays, default=0.0)
    found = list(_cluster(admin))
    for name in dict.fromkeys(part.name for part in parts if part.kind == TOPIC):
        try:
            replicas = admin.replication(name)
            settings = admin.config(ResourceType.TOPIC, name)
        except DestinationNotFound:
            continue
        except MessagingError as error:
            found.append(unseen(_topic(name), "its settings", str(error), "nothing below is known of it"))
            continue
        found += _of_topic(_topic(name), replicas, settings, longest)
    return found


def _topic(name: str) -> str:
    return f"topic {name!r}"


def _cluster(admin: Admin) -> Iterator[Concern]:
    try:
        settings = admin.config(ResourceType.BROKER, admin.a_broker())
    except MessagingError as error:
        yield unseen(
            "the cluster",
            "the brokers' settings",
            str(error),
            "auto.create.topics.enable and offsets.retention.minutes are not known",
            "grant DescribeConfigs on the cluster, or: kafka-configs.sh --entity-type brokers --describe --all",
        )
        return
    if settings.get("auto.create.topics.enable") == "true":
        yield Concern(
            "the cluster",
            "auto.create.topics.enable",
            "true",
            "a program that misspells a topic makes a new one, with the cluster's defaults, and what it publishes "
            "there is read by nobody; this library refuses unknown names, other programs do not",
            "set auto.create.topics.enable=false in server.properties and restart the brokers one by one",
        )
    minutes = _number(settings, "offsets.retention.minutes")
    if minutes is not None and 0 <= minutes < _OFFSETS_KEPT:
        yield Concern(
            "the cluster",
            "offsets.retention.minutes",
            f"{minutes:g} ({_span(minutes * 60)})",
            "a group without consumers for that long forgets its position; what was published meanwhile, and is not "
            "acknowledged, is skipped or comes again",
            f"set offsets.retention.minutes to {_OFFSETS_KEPT} or more in server.properties",
        )


def _of_topic(about: str, replicas: int, settings: Settings, longest: float) -> Iterable[Concern]:
    yield from _kept_safe(about, replicas, settings)
    yield from _kept_long(about, settings, longest)
    largest = _number(settings, LARGEST)
    # Dead-letter and retry topics have the room that their source has, and some more.
    if largest is not None and largest < DEFAULT_LIMIT and SEPARATOR not in about:
        yield Concern(
            about,
            LARGEST,
            f"{largest:.0f} bytes",
            f"a message that fits elsewhere (Kafka's default is {DEFAULT_LIMIT}) is refused with MessageTooLarge here",
            f"raise message.max.bytes of the brokers, or "
            f"{LARGEST} of the topic: {_alter(about, LARGEST, DEFAULT_LIMIT)}",
        )


def _kept_safe(about: str, replicas: int, settings: Settings) -> Iterable[Concern]:
    in_sync = _number(settings, _MIN_IN_SYNC)
    if replicas == 1:
        yield Concern(
            about,
            "replication factor",
            f"1 (and {_MIN_IN_SYNC} {settings.get(_MIN_IN_SYNC)})",
            "a confirmed message is on one broker only: it is lost with that broker's disk, and cannot be had while "
            "the broker is down",
            'make topics with native={"kafka": {"replication_factor": 3}}, or raise default.replication.factor; what '
            "is there is moved with kafka-reassign-partitions.sh",
        )
    elif in_sync == 1:
        yield Concern(
            about,
            _MIN_IN_SYNC,
            f"1, of {replicas} replicas",
            "when the others are behind, a publish is confirmed with one copy, and the message is lost with that "
            "broker",
            _alter(about, _MIN_IN_SYNC, 2),
        )
    if in_sync is not None and in_sync > replicas:
        yield Concern(
            about,
            _MIN_IN_SYNC,
            f"{in_sync:.0f}, of {replicas} {'replica' if replicas == 1 else 'replicas'}",
            "there are never so many, so every publish is refused (NOT_ENOUGH_REPLICAS)",
            f"more replicas, or {_alter(about, _MIN_IN_SYNC, max(replicas - 1, 1))}",
        )
    if settings.get(_UNCLEAN) == "true":
        yield Concern(
            about,
            _UNCLEAN,
            "true",
            "a replica that lags may become the leader: confirmed messages that it lacks are lost, and offsets are "
            "used twice",
            _alter(about, _UNCLEAN, "false"),
        )


def _kept_long(about: str, settings: Settings, longest: float) -> Iterable[Concern]:
    cleanup = settings.get(CLEANUP) or "delete"
    keeps = _number(settings, RETENTION)
    if "delete" in cleanup and keeps is not None and 0 <= keeps / 1000 < longest:
        yield Concern(
            about,
            RETENTION,
            f"{keeps:.0f} ({_span(keeps / 1000)})",
            f"shorter than the longest retry delay ({_span(longest)}): what waits would be deleted, so the nack is "
            "refused with UnsupportedCapability",
            f"shorter delays, or {_alter(about, RETENTION, round(longest * 2000))}",
        )
    size = _number(settings, "retention.bytes")
    if "delete" in cleanup and size is not None and size >= 0:
        yield Concern(
            about,
            "retention.bytes",
            f"{size:.0f} a partition",
            "when more is published than that, the oldest is deleted, read or not",
            _alter(about, "retention.bytes", -1),
        )
    if "compact" in cleanup:
        yield Concern(
            about,
            CLEANUP,
            cleanup,
            "of several messages of a key only the last one stays: a consumer that is behind never sees the others, "
            "and messages without a key are refused",
            _alter(about, CLEANUP, "delete"),
        )


def _alter(about: str, setting: str, value: object) -> str:
    name = about.removeprefix("topic ").strip("'")
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}={value}"


def _number(settings: Settings, name: str) -> float | None:
    try:
        return float(settings.get(name) or "")
    except ValueError:
        return None


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:g} s"
