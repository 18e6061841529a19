"""Retry topics of consumer-group sources, opted in to: `native={"kafka": {"retry_topics": [10, 60, 600]}}`.

One topic a delay, `<source>--retry-<seconds>`, with a consumer group of the same name. All of its records wait equally
long, so the first of a partition is always due first and a position says how far it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from messaging.errors import ConfigurationError
from messaging.topology import Queue, Source

from .admin import Admin

OPTION = "retry_topics"
RETRY = "--retry-"

_LONGEST = 366 * 24 * 3600
_MOST = 10


def retry_topic(source: str, seconds: int) -> str:
    """The retry topic of a source for one delay, and the consumer group that reads it."""
    return f"{source}{RETRY}{seconds}"


def levels_of(source: Source) -> tuple[int, ...]:
    """The delays of a source's retry topics, seconds, rising; none unless opted in. Raises ConfigurationError."""
    part = source.destination if isinstance(source.destination, Queue) else source.subscription
    options: Mapping[str, Any] = {} if part is None else part.native.get("kafka", {})
    if OPTION not in options:
        return ()
    where, given = f"native kafka option {OPTION!r} of {source}", options[OPTION]
    if not isinstance(given, Sequence) or isinstance(given, str | bytes) or not all(map(_is_level, given)):
        raise ConfigurationError(f"{where} lists whole seconds from 1 to {_LONGEST}, such as [10, 60], not {given!r}")
    if not 1 <= len(given) <= _MOST:
        raise ConfigurationError(f"{where} lists 1 to {_MOST} delays, since each is a topic with a consumer of its own")
    if any(first >= second for first, second in pairwise(given)):
        raise ConfigurationError(f"{where} must rise: write {sorted(set(given))}, not {list(given)}")
    if source.ordered:
        raise ConfigurationError(
            f"{where}: a message in a retry topic is overtaken by later ones of its key, which ordered=True rules out: "
            f"leave out {OPTION}, then a nacked message keeps its place; or declare {source.destination.name!r} "
            "unordered"
        )
    return tuple(given)


def _is_level(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LONGEST


def existing(admin: Admin, *sources: str) -> dict[str, dict[int, str]]:
    """The retry topics that the cluster has for each of these sources, by delay; also those declared no longer."""
    found: dict[str, dict[int, str]] = {source: {} for source in sources}
    for topic in admin.topics():
        source, _, seconds = topic.rpartition(RETRY)
        if source in found and seconds.isascii() and seconds.isdigit() and topic == retry_topic(source, int(seconds)):
            found[source][int(seconds)] = topic
    return found


def undeclared(admin: Admin, sources: Iterable[Source]) -> Iterator[tuple[Source, str]]:
    """The retry topics that the cluster has and their sources declare no longer."""
    found = list(sources)
    there = existing(admin, *(source.name for source in found))
    for source in found:
        levels = levels_of(source)
        yield from ((source, topic) for level, topic in sorted(there[source.name].items()) if level not in levels)


def retry_topics(admin: Admin, source: Source) -> dict[int, str]:
    """The retry topics to be read for a source, by delay: those declared, and others that the cluster has.

    What waits in a topic that is declared no longer is thus delivered all the same.
    """
    if source.ordered:
        return {}
    declared = {level: retry_topic(source.name, level) for level in levels_of(source)}
    return dict(sorted((existing(admin, source.name)[source.name] | declared).items()))
