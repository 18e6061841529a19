"""What needs a database beside the broker: inbox, outbox, event store and projections, on SQLAlchemy Core."""

from messaging_sql.aggregate import Aggregate, SnapshotAggregate
from messaging_sql.backlog import Backlog, ParkedRow
from messaging_sql.conflicts import retry_conflicts
from messaging_sql.errors import DatabaseUnavailable, TablesMissing
from messaging_sql.event_errors import (
    DuplicateEvent,
    ProjectionFailed,
    StreamNotFound,
    UnknownEventType,
    VersionConflict,
)
from messaging_sql.event_publishing import to_outbox
from messaging_sql.event_store import EventStore
from messaging_sql.event_types import EventTypes
from messaging_sql.events import Appended, Expected, NewEvent, Recorded
from messaging_sql.inbox import Inbox
from messaging_sql.outbox import Outbox
from messaging_sql.projection import ParkedEvent, Projection
from messaging_sql.relay import Relay
from messaging_sql.relay_stats import RelayStats
from messaging_sql.repository import Repository
from messaging_sql.snapshots import Snapshots
from messaging_sql.subscription import Subscription
from messaging_sql.tables import Tables, create_tables

__all__ = [
    "Aggregate",
    "Appended",
    "Backlog",
    "DatabaseUnavailable",
    "DuplicateEvent",
    "EventStore",
    "EventTypes",
    "Expected",
    "Inbox",
    "NewEvent",
    "Outbox",
    "ParkedEvent",
    "ParkedRow",
    "Projection",
    "ProjectionFailed",
    "Recorded",
    "Relay",
    "RelayStats",
    "Repository",
    "SnapshotAggregate",
    "Snapshots",
    "StreamNotFound",
    "Subscription",
    "Tables",
    "TablesMissing",
    "UnknownEventType",
    "VersionConflict",
    "create_tables",
    "retry_conflicts",
    "to_outbox",
]
