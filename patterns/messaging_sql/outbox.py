"""Publishing in the transaction of the business write: what is committed is published, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from sqlalchemy import Connection, func, insert, select

from messaging.errors import InvalidMessage
from messaging.message import Message, MessageFields
from messaging.names import check_name
from messaging.topology import Destination
from messaging_sql.backlog import Backlog, ParkedRow, backlog, discard, parked, requeue
from messaging_sql.database import explained
from messaging_sql.hint import channel
from messaging_sql.rows import row_of
from messaging_sql.tables import Tables, default_tables


class Outbox:
    """Where messages wait, in the same database, until a relay has published them.

        outbox = Outbox()

        with engine.begin() as connection:
            connection.execute(insert(orders).values(...))
            outbox.add(connection, "orders", {"id": 7}, key="customer-42", type="order.placed")

    notify: tell relays at once, on PostgreSQL; without it they find out when they look next. Immutable; any thread
    may use it.
    """

    def __init__(self, *, tables: Tables | None = None, notify: bool = True) -> None:
        self._tables = tables or default_tables()
        self._notify = notify

    def add(self, connection: Connection, topic: str | Destination, value: Any, **fields: Unpack[MessageFields]) -> str:
        """Puts one message into the caller's transaction; returns its id, a UUID, which it keeps on its way.

        value: bytes pass through, a `Message` carries its own fields, everything else becomes JSON.
        Raises InvalidMessage (also for an id that is no UUID), EncodeError, TablesMissing, DatabaseUnavailable.
        """
        if isinstance(value, Message):
            if fields:
                raise InvalidMessage(f"a Message carries its own fields: {', '.join(fields)} cannot be given beside it")
        else:
            value = Message.of(value, **fields)
        return self.add_many(connection, topic, [value])[0]

    def add_many(self, connection: Connection, topic: str | Destination, items: Iterable[Any]) -> list[str]:
        """As `add`, for values or `Message`s, in order, in one go. Returns their ids."""
        name = check_name(topic if isinstance(topic, str) else topic.name, "topic")
        rows = [row_of(name, item if isinstance(item, Message) else Message.of(item)) for item in items]
        if rows:
            with explained(self._tables, connection):
                connection.execute(insert(self._tables.outbox), rows)
                if self._notify and connection.dialect.name == "postgresql":
                    connection.execute(select(func.pg_notify(channel(self._tables), "")))
        return [str(row["id"]) for row in rows]

    def backlog(self, connection: Connection) -> Backlog:
        """How much waits, for how long, and how much is parked. Counts rows: not for every second."""
        with explained(self._tables, connection):
            return backlog(connection, self._tables)

    def parked(self, connection: Connection, limit: int = 100) -> list[ParkedRow]:
        """The rows that relays gave up, the oldest first."""
        with explained(self._tables, connection):
            return parked(connection, self._tables, limit)

    def requeue(self, connection: Connection, ids: Iterable[str] | None = None) -> int:
        """Makes relays try parked rows again, those with these ids or all; returns how many. Notifies nobody.

        Rows of the same key that came later are published already: after a requeue the key is out of order.
        """
        with explained(self._tables, connection):
            return requeue(connection, self._tables, ids)

    def discard(self, connection: Connection, ids: Iterable[str]) -> int:
        """Drops parked rows for good; returns how many. What is not parked stays."""
        with explained(self._tables, connection):
            return discard(connection, self._tables, ids)
