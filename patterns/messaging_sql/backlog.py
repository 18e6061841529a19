"""What is in the outbox: for metrics, and for whoever looks after the rows that relays gave up."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, case, delete, func, select, update

from messaging.errors import InvalidMessage
from messaging_sql.database import now
from messaging_sql.tables import Tables


@dataclass(frozen=True)
class Backlog:
    """waiting: rows not published yet. failing: those of them that failed and are tried again. parked: given up.

    oldest: seconds since the oldest waiting message was made, 0.0 when none waits.
    """

    waiting: int
    failing: int
    parked: int
    oldest: float


@dataclass(frozen=True)
class ParkedRow:
    """A row that relays gave up. parked_at: seconds since the epoch."""

    id: str
    topic: str
    key: str | None
    type: str
    attempts: int
    error: str
    parked_at: float


def backlog(connection: Connection, tables: Tables) -> Backlog:
    """See `Outbox.backlog`."""
    outbox = tables.outbox
    waits = outbox.c.parked_at.is_(None)
    row = connection.execute(
        select(
            func.count(case((waits, 1))),
            func.count(case((waits & (outbox.c.attempts > 0), 1))),
            func.count(outbox.c.parked_at),
            now() - func.min(case((waits, outbox.c.timestamp))) / 1000.0,
        )
    ).one()
    return Backlog(row[0], row[1], row[2], max(float(row[3] or 0.0), 0.0))


def parked(connection: Connection, tables: Tables, limit: int) -> list[ParkedRow]:
    """See `Outbox.parked`."""
    c = tables.outbox.c
    statement = select(c.id, c.aggregatetype, c.aggregateid, c.type, c.attempts, c.error, c.parked_at)
    rows = connection.execute(statement.where(c.parked_at.is_not(None)).order_by(c.parked_at).limit(limit))
    return [ParkedRow(str(row[0]), *row[1:]) for row in rows]


def requeue(connection: Connection, tables: Tables, ids: Iterable[str] | None) -> int:
    """See `Outbox.requeue`."""
    outbox = tables.outbox
    statement = update(outbox).where(outbox.c.parked_at.is_not(None))
    if ids is not None:
        statement = statement.where(outbox.c.id.in_(_uuids(ids)))
    return connection.execute(statement.values(parked_at=None, retry_at=None, attempts=0)).rowcount


def discard(connection: Connection, tables: Tables, ids: Iterable[str]) -> int:
    """See `Outbox.discard`."""
    outbox = tables.outbox
    return connection.execute(
        delete(outbox).where(outbox.c.parked_at.is_not(None), outbox.c.id.in_(_uuids(ids)))
    ).rowcount


def _uuids(ids: Iterable[str]) -> list[uuid.UUID]:
    try:
        return [uuid.UUID(one) for one in ids]
    except (ValueError, AttributeError, TypeError):
        raise InvalidMessage("the ids of an outbox are UUIDs") from None
