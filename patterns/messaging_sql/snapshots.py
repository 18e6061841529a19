"""Snapshots: the state of a stream at a version, so that a long one need not be read from its beginning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from messaging.codec import JSON, decode, encode
from messaging.errors import DecodeError
from messaging_sql.database import explained
from messaging_sql.tables import Tables, default_tables


@dataclass(frozen=True, slots=True)
class Snapshot:
    """state: what was saved. version, event_id: of the last event in it."""

    version: int
    event_id: str
    state: Any


class Snapshots:
    """The newest snapshot of each stream. They only save time: all of them may be discarded at any moment.

    Immutable; any thread may use it.
    """

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = tables or default_tables()
        self._load = select(self.tables.snapshots).where(self.tables.snapshots.c.stream == bindparam("of_stream"))

    def save(
        self, connection: Connection, stream: str, version: int, event_id: str, state: object, *, schema: int
    ) -> None:
        """Keeps `state` unless a newer one is there. schema: the version of its fields; older ones are passed over.

        Raises EncodeError, TablesMissing, DatabaseUnavailable.
        """
        snapshots = self.tables.snapshots
        row = {"version": version, "schema": schema, "event_id": event_id, "data": encode(state, JSON)[0].decode()}
        with explained(self.tables, connection):
            new = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(snapshots)
            older = (snapshots.c.version < version) | (snapshots.c.schema != schema)
            connection.execute(
                new.values(stream=stream, **row).on_conflict_do_update(
                    index_elements=[snapshots.c.stream], set_=row, where=older
                )
            )

    def load(self, connection: Connection, stream: str, as_type: Any, *, schema: int) -> Snapshot | None:
        """The snapshot of a stream. None: there is none, or of another schema, or it does not become an `as_type`."""
        with explained(self.tables, connection):
            row = connection.execute(self._load, {"of_stream": stream}).one_or_none()
        if row is None or row.schema != schema:
            return None
        try:
            return Snapshot(row.version, row.event_id, decode(row.data.encode(), JSON, as_type))
        except DecodeError:
            return None  # the events have it all

    def discard(self, connection: Connection, stream: str | None = None) -> int:
        """Deletes the snapshot of a stream, or all of them. Returns how many that were."""
        snapshots = self.tables.snapshots
        statement = delete(snapshots) if stream is None else delete(snapshots).where(snapshots.c.stream == stream)
        with explained(self.tables, connection):
            return connection.execute(statement).rowcount
