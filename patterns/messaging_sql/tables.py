"""The tables, as one set with a schema and a prefix of the program's choice, and what creates them."""

from __future__ import annotations

from functools import cache

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    insert,
    select,
)

from messaging_sql import event_tables
from messaging_sql.database import transaction

LANES = 64
"""Into so many lanes the keys of the outbox are divided: what one relay at a time has to itself."""


class Tables:
    """Every table of this package. `default_tables()` is right for most programs.

    schema: the database schema, None: the connection's own. prefix: what the names of the tables begin with.
    Immutable; any thread may use it.
    """

    def __init__(self, schema: str | None = None, prefix: str = "messaging_") -> None:
        self.schema = schema
        self.prefix = prefix
        self.metadata = MetaData(schema=schema)
        self.inbox = _inbox(self.metadata, prefix)
        self.outbox = _outbox(self.metadata, prefix)
        self.lanes = _lanes(self.metadata, prefix)
        self.events = event_tables.events(self.metadata, prefix)
        self.snapshots = event_tables.snapshots(self.metadata, prefix)
        self.projections = event_tables.projections(self.metadata, prefix)
        self.parked_events = event_tables.parked_events(self.metadata, prefix)

    @property
    def create_command(self) -> str:
        """The command that creates them, for the text of an error."""
        chosen = f" --schema {self.schema}" if self.schema else ""
        chosen += f" --prefix {self.prefix}" if self.prefix != "messaging_" else ""
        return f"messaging tables create --database URL{chosen}"


@cache
def default_tables() -> Tables:
    """The tables that everything here uses when it is given none: `messaging_outbox`, `messaging_inbox` and so on."""
    return Tables()


def create_tables(engine: Engine, tables: Tables | None = None) -> None:
    """Creates the tables that are missing; those that are there stay as they are. Idempotent.

    Whoever makes them by migrations of their own (`tables.metadata`) calls this afterwards: it fills the lanes, without
    which no relay starts. The schema must exist.

    Raises DatabaseUnavailable, and ConfigurationError for a database that is not supported.
    """
    tables = tables or default_tables()
    with transaction(engine, tables) as connection:
        tables.metadata.create_all(connection)
        lane = tables.lanes.c.lane
        there = set(connection.scalars(select(lane)))
        missing = [{"lane": number, "served_at": 0.0} for number in range(LANES) if number not in there]
        if missing:
            connection.execute(insert(tables.lanes), missing)


def _inbox(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}inbox",
        metadata,
        Column("subscriber", String(255), primary_key=True),
        Column("message_id", String(255), primary_key=True),
        Column("seen_at", Double, nullable=False, index=True),
    )


def _outbox(metadata: MetaData, prefix: str) -> Table:
    """`id`, `aggregatetype`, `aggregateid`, `type`, `payload` are what Debezium's outbox event router looks for.

    The topic is in `aggregatetype` and the key in `aggregateid`. `timestamp` and `expires_at` are milliseconds;
    the times of relays are seconds. All since the epoch, UTC.
    """
    table = Table(
        f"{prefix}outbox",
        metadata,
        Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("id", Uuid, nullable=False),
        Column("aggregatetype", String(255), nullable=False),
        Column("aggregateid", String(255)),
        Column("type", String(255), nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("content_type", String(255)),
        Column("headers", Text),
        Column("timestamp", BigInteger, nullable=False),
        Column("expires_at", BigInteger),
        Column("correlation_id", String(255)),
        Column("reply_to", String(255)),
        Column("lane", SmallInteger, nullable=False),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("retry_at", Double),
        Column("parked_at", Double),
        Column("error", Text),
        sqlite_autoincrement=True,  # a plain rowid uses the highest number again once its row is gone
    )
    waiting = table.c.parked_at.is_(None)
    Index(f"{prefix}outbox_waiting", table.c.lane, table.c.position, postgresql_where=waiting, sqlite_where=waiting)
    failed = waiting & (table.c.attempts > 0)
    Index(f"{prefix}outbox_failed", table.c.lane, table.c.position, postgresql_where=failed, sqlite_where=failed)
    return table


def _lanes(metadata: MetaData, prefix: str) -> Table:
    """Which relay has which lane, until when. `served_at`: when one gave it back last."""
    return Table(
        f"{prefix}outbox_lanes",
        metadata,
        Column("lane", SmallInteger, primary_key=True, autoincrement=False),
        Column("owner", String(64)),
        Column("lease_until", Double),
        Column("served_at", Double, nullable=False),
    )
