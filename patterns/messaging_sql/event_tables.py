"""The tables of the event store and of projections."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, String, Table, Text, UniqueConstraint

_BIG = BigInteger().with_variant(Integer, "sqlite")


def events(metadata: MetaData, prefix: str) -> Table:
    """`data` and `metadata` are JSON, `time` is seconds since the epoch (UTC), `schema` the version of the type.

    Positions are given by the store, one after the other: no sequence, which would leave gaps and count before commits.
    """
    return Table(
        f"{prefix}events",
        metadata,
        Column("position", _BIG, primary_key=True, autoincrement=False),
        Column("stream", String(255), nullable=False),
        Column("version", _BIG, nullable=False),
        Column("category", String(255), nullable=False),
        Column("id", String(36), nullable=False),
        Column("type", String(255), nullable=False),
        Column("schema", Integer, nullable=False),
        Column("data", Text, nullable=False),
        Column("metadata", Text),
        Column("time", Double, nullable=False),
        UniqueConstraint("stream", "version", name=f"{prefix}events_version"),
        UniqueConstraint("id", name=f"{prefix}events_id"),
    )


def snapshots(metadata: MetaData, prefix: str) -> Table:
    """The newest snapshot of each stream. `event_id` is that of the last event in it. All of it may be deleted."""
    return Table(
        f"{prefix}snapshots",
        metadata,
        Column("stream", String(255), primary_key=True),
        Column("version", _BIG, nullable=False),
        Column("schema", Integer, nullable=False),
        Column("event_id", String(36), nullable=False),
        Column("data", Text, nullable=False),
    )


def projections(metadata: MetaData, prefix: str) -> Table:
    """How far each projection is: everything up to `position` is in its read model."""
    return Table(
        f"{prefix}projections",
        metadata,
        Column("name", String(255), primary_key=True),
        Column("position", _BIG, nullable=False),
    )


def parked_events(metadata: MetaData, prefix: str) -> Table:
    """Which events a projection passed over, and why."""
    return Table(
        f"{prefix}parked_events",
        metadata,
        Column("name", String(255), primary_key=True),
        Column("position", _BIG, primary_key=True, autoincrement=False),
        Column("error", Text, nullable=False),
    )
