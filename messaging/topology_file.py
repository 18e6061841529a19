"""The `[topology]` tables of `messaging.toml` as a Topology.

[topology.queues.jobs]
ordered = true

[topology.topics.orders]
native.kafka.partitions = 12

[topology.topics.orders.subscriptions.inventory]
pattern = "order.*"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from messaging.config import build_options, table
from messaging.errors import ConfigurationError
from messaging.topology import Destination, Queue, Subscription, Topic, Topology

T = TypeVar("T")


@dataclass(frozen=True)
class _TopicTable:
    ordered: bool = False
    subscriptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    native: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_topology(tables: Mapping[str, Any]) -> Topology:
    """Raises ConfigurationError for an unknown key and TopologyError for an invalid name."""
    for kind in tables:
        if kind not in ("queues", "topics"):
            raise ConfigurationError(f"[topology.{kind}] is not known; use [topology.queues] and [topology.topics]")
    queues: list[Destination] = [
        _build(Queue, "name", name, value, f"topology.queues.{name}")
        for name, value in table(tables.get("queues", {}), "topology.queues").items()
    ]
    topics = [_topic(name, value) for name, value in table(tables.get("topics", {}), "topology.topics").items()]
    return Topology(*queues, *topics)


def _topic(name: str, value: Any) -> Topic:
    path = f"topology.topics.{name}"
    parsed = build_options(_TopicTable, table(value, path), f"[{path}]")
    _check_native(parsed.native, path)
    subscriptions = [
        _build(Subscription, "group", group, options, f"{path}.subscriptions.{group}")
        for group, options in table(parsed.subscriptions, f"{path}.subscriptions").items()
    ]
    return Topic(name, *subscriptions, ordered=parsed.ordered, native=parsed.native)


def _build(cls: type[T], called: str, name: str, value: Any, path: str) -> T:
    """The table's own name is the queue's or group's: it may not be given again inside."""
    options = table(value, path)
    if called in options:
        raise ConfigurationError(f"[{path}] takes no {called!r}: the last part of the table's name is the {called}")
    _check_native(options.get("native", {}), path)
    return build_options(cls, {called: name, **options}, f"[{path}]")


def _check_native(native: Any, path: str) -> None:
    for adapter, options in table(native, f"{path}.native").items():
        table(options, f"{path}.native.{adapter}")
