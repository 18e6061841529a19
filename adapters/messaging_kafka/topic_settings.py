"""What `native={"kafka": {...}}` says about a topic, checked strictly."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from messaging.errors import ConfigurationError
from messaging.topology import Queue, Subscription, Topic

from .retry_topics import OPTION

PARTITIONS = 4
"""Partitions of a topic that does not say: consumers of one group that work at the same time, at most."""

CLEANUP, RETENTION = "cleanup.policy", "retention.ms"


@dataclass(frozen=True)
class TopicSettings:
    """partitions, replication_factor: None leaves the choice to the adapter and the broker.

    config: the topic's settings by Kafka's names, with `retention` and `compact` translated. The cleanup policy is
    always among them: a cluster whose own is to compact would lose all but the last message of a key.
    """

    partitions: int | None = None
    replication_factor: int | None = None
    config: Mapping[str, str] = field(default_factory=lambda: {CLEANUP: "delete"})

    @classmethod
    def of(cls, part: Queue | Topic) -> TopicSettings:
        """The settings of a queue or topic. Raises ConfigurationError for what is unknown or of the wrong type."""
        options = dict(part.native.get("kafka", {}))
        where = f"native kafka option of {part.name!r}"
        partitions = _whole(options.pop("partitions", None), f"{where}: partitions")
        replication = _whole(options.pop("replication_factor", None), f"{where}: replication_factor")
        retention, compact = options.pop("retention", None), options.pop("compact", None)
        raw = options.pop("config", {})
        if isinstance(part, Queue):
            options.pop(OPTION, None)
        elif OPTION in options:
            raise ConfigurationError(f"{where}: {OPTION} belongs to each subscription, Subscription(..., native=...)")
        if options:
            known = ["partitions", "replication_factor", "retention", "compact", "config", OPTION]
            name = next(iter(options))
            near = difflib.get_close_matches(str(name), known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigurationError(f"{where}: unknown {name!r}; {hint}")
        if not isinstance(raw, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in raw.items()):
            raise ConfigurationError(f"{where}: config maps Kafka's topic settings to text, not {raw!r}")
        config = dict(raw)
        if retention is not None:
            if isinstance(retention, bool) or not isinstance(retention, int | float) or not retention > 0:
                raise ConfigurationError(f"{where}: retention must be a positive number of seconds, not {retention!r}")
            _add(config, RETENTION, str(round(retention * 1000)), where)
        if compact is not None:
            if not isinstance(compact, bool):
                raise ConfigurationError(f"{where}: compact must be true or false, not {compact!r}")
            _add(config, CLEANUP, "compact" if compact else "delete", where)
        config.setdefault(CLEANUP, "delete")
        if isinstance(part, Queue) and "compact" in config[CLEANUP]:
            raise ConfigurationError(f"{where}: a compacted queue would lose messages; use a topic")
        return cls(partitions, replication, config)


def check_subscription(subscription: Subscription) -> None:
    """Raises ConfigurationError for what is unknown: a subscription has `retry_topics` only."""
    for name in subscription.native.get("kafka", {}):
        if name != OPTION:
            raise ConfigurationError(
                f"native kafka option {name!r} of subscription {subscription.group!r}: there is only {OPTION!r}"
            )


def _whole(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{where} must be a whole number from 1 on, not {value!r}")
    return value


def _add(config: dict[str, str], key: str, value: str, where: str) -> None:
    if config.setdefault(key, value) != value:
        raise ConfigurationError(f"{where}: config sets {key} = {config[key]!r} and another option {value!r}")
