"""Which classes of `messaging_sql` a clause is run on: the real ones, or a saboteur among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from messaging_sql import EventStore, Inbox, Outbox, Projection, Relay, Repository


@dataclass(frozen=True)
class Kinds:
    outbox: type[Outbox] = Outbox
    relay: type[Relay] = Relay
    inbox: type[Inbox] = Inbox
    store: type[EventStore] = EventStore
    repository: type[Repository[Any]] = Repository
    projection: type[Projection] = Projection
