"""The rows that wait in the outbox, and the lanes that relays share them by. Statements only: no broker, no threads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, or_, select, union_all, update

from messaging_sql.database import now
from messaging_sql.tables import Tables

_AT_A_TIME = 1000
"""Rows in one statement: databases bound how many parameters it may have."""


class Waiting:
    """What one relay, called `owner`, does with the rows. Every method belongs into a transaction of the caller."""

    def __init__(self, tables: Tables, owner: str) -> None:
        self._outbox = tables.outbox
        self._lanes = tables.lanes
        self._owner = owner

    def count_lanes(self, connection: Connection) -> int:
        """How many lanes the database knows of."""
        return connection.scalar(select(func.count()).select_from(self._lanes)) or 0

    def claim(self, connection: Connection, most: int, lease: float, held: Collection[str] = ()) -> list[int]:
        """Takes up to `most` lanes that nobody has and in which something can be sent, for `lease` seconds.

        held: topics that cannot be published to now. The lane that was served longest ago comes first.
        """
        lanes, outbox = self._lanes, self._outbox
        free = or_(lanes.c.lease_until.is_(None), lanes.c.lease_until < now(), lanes.c.owner == self._owner)
        sendable = self._sendable(held, self._anything_fails(connection))
        something = exists().where(outbox.c.lane == lanes.c.lane, sendable).correlate(lanes)
        chosen = (
            select(lanes.c.lane)
            .where(free, something)
            .order_by(lanes.c.served_at)
            .limit(most)
            .with_for_update(skip_locked=True)
            .cte("chosen")
        )
        statement = (
            update(lanes)
            .where(lanes.c.lane.in_(select(chosen.c.lane)))
            .values(owner=self._owner, lease_until=now() + lease)
            .returning(lanes.c.lane)
        )
        return list(connection.scalars(statement))

    def renew(self, connection: Connection, lanes: Sequence[int], lease: float) -> bool:
        """Keeps `lanes` for `lease` seconds from now. False when somebody else may have had one meanwhile."""
        table = self._lanes
        mine = and_(table.c.lane.in_(lanes), table.c.owner == self._owner, table.c.lease_until > now())
        done = connection.execute(update(table).where(mine).values(lease_until=now() + lease))
        return done.rowcount == len(lanes)

    def release(self, connection: Connection) -> None:
        """Gives back every lane that is still this relay's."""
        table = self._lanes
        mine = table.c.owner == self._owner
        connection.execute(update(table).where(mine).values(owner=None, lease_until=None, served_at=now()))

    def read(
        self, connection: Connection, lanes: Sequence[int], most: int, held: Collection[str] = ()
    ) -> list[Row[Any]]:
        """Up to about `most` rows of `lanes` that can be sent now, in the order in which they were added."""
        each = max(most // len(lanes), 1)
        outbox = self._outbox
        # Asked again: before the claim, another relay may have given back a lane with a row that failed.
        sendable = self._sendable(held, self._anything_fails(connection))
        # A part a lane, so that the index gives each in order, and a full lane leaves room for the others.
        parts = [
            select(outbox).where(outbox.c.lane == lane, sendable).order_by(outbox.c.position).limit(each).subquery()
            for lane in lanes
        ]
        rows = connection.execute(union_all(*(select(part) for part in parts))).all()
        return sorted(rows, key=lambda row: row.position)

    def remove(self, connection: Connection, positions: Sequence[int]) -> None:
        """Takes out what is published."""
        outbox = self._outbox
        for start in range(0, len(positions), _AT_A_TIME):
            connection.execute(delete(outbox).where(outbox.c.position.in_(positions[start : start + _AT_A_TIME])))

    def fail(
        self, connection: Connection, failed: Mapping[int, str], first_delay: float, park_after: int | None
    ) -> int:
        """Counts an attempt of each row, by position, with what went wrong. Returns how many are parked now.

        The next attempt is after `first_delay` seconds, then twice that, and so on; `park_after` attempts are the last.
        """
        outbox = self._outbox
        parked = 0
        for position, text in failed.items():
            row = outbox.c.position == position
            attempts = (connection.scalar(select(outbox.c.attempts).where(row)) or 0) + 1
            values: dict[str, Any] = {"attempts": attempts, "error": text[:1000]}
            if park_after is not None and attempts >= park_after:
                values |= {"parked_at": now(), "retry_at": None}
                parked += 1
            else:
                values["retry_at"] = now() + min(first_delay * 2 ** min(attempts - 1, 20), _LONGEST_DELAY)
            connection.execute(update(outbox).where(row).values(values))
        return parked

    def _anything_fails(self, connection: Connection) -> bool:
        """Whether any row waits for another attempt. Mostly none does, and then nobody has to look for it row by row:
        a planner without statistics looks through the whole lane for each."""
        outbox = self._outbox
        failing = exists().where(outbox.c.attempts > 0, outbox.c.parked_at.is_(None))
        return bool(connection.scalar(select(failing)))

    def _sendable(self, held: Collection[str], anything_fails: bool) -> ColumnElement[bool]:
        """Not parked, not of a topic in `held`, and no row of its key waits for another attempt."""
        outbox = self._outbox
        conditions: list[ColumnElement[bool]] = [outbox.c.parked_at.is_(None)]
        if held:
            conditions.append(outbox.c.aggregatetype.not_in(held))
        if anything_fails:
            failed = outbox.alias("failed")
            waits = exists().where(
                failed.c.lane == outbox.c.lane,
                failed.c.attempts > 0,
                failed.c.parked_at.is_(None),
                failed.c.retry_at.between(now(), now() + _LONGEST_DELAY),  # beyond that, the clock was set back
                failed.c.aggregatetype == outbox.c.aggregatetype,
                or_(failed.c.aggregateid == outbox.c.aggregateid, failed.c.position == outbox.c.position),
            )
            conditions.append(~waits.correlate(outbox))
        return and_(*conditions)


_LONGEST_DELAY = 300.0
"""Seconds between two attempts of a row, at most."""
