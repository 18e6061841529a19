"""Bank accounts: the events, the aggregate and the read model of the clauses about event store and projections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Engine, MetaData, String, Table, delete, insert, select, update

from messaging_sql import EventStore, EventTypes, Projection, Recorded, SnapshotAggregate, Tables

Handler = Callable[[Connection, Recorded], None]


@dataclass(frozen=True)
class Opened:
    owner: str


@dataclass(frozen=True)
class Deposited:
    cents: int


@dataclass(frozen=True)
class Withdrawn:
    cents: int


@dataclass(frozen=True)
class Closed:
    reason: str = ""


def account_types() -> EventTypes:
    types = EventTypes()
    types.add("account.opened", Opened)
    types.add("account.deposited", Deposited)
    types.add("account.withdrawn", Withdrawn)
    types.add("account.closed", Closed)
    return types


@dataclass(frozen=True)
class State:
    owner: str
    balance: int


class Account(SnapshotAggregate):
    category = "account"
    snapshot_type = State
    owner = ""
    balance = 0

    def open(self, owner: str) -> None:
        self.record(Opened(owner))

    def deposit(self, cents: int) -> None:
        self.record(Deposited(cents))

    def withdraw(self, cents: int) -> None:
        if cents > self.balance:
            raise ValueError(f"{cents} of {self.balance}")
        self.record(Withdrawn(cents))

    def apply(self, event: object) -> None:
        match event:
            case Opened(owner):
                self.owner = owner
            case Deposited(cents):
                self.balance += cents
            case Withdrawn(cents):
                self.balance -= cents

    def snapshot(self) -> State:
        return State(self.owner, self.balance)

    def restore(self, state: State) -> None:
        self.owner, self.balance = state.owner, state.balance


class Balances:
    """The read model: a row an account. Handlers add, so whatever is applied twice or not at all shows.

    metadata: of which the table becomes part. It is created.
    """

    def __init__(self, engine: Engine, metadata: MetaData, name: str = "balances") -> None:
        self.engine = engine
        self.table = Table(
            name,
            metadata,
            Column("account", String(255), primary_key=True),
            Column("cents", BigInteger, nullable=False),
        )
        self.table.create(engine, checkfirst=True)

    def opened(self, connection: Connection, event: Recorded) -> None:
        connection.execute(insert(self.table).values(account=event.stream, cents=0))

    def deposited(self, connection: Connection, event: Recorded) -> None:
        self._add(connection, event.stream, event.value.cents)

    def withdrawn(self, connection: Connection, event: Recorded) -> None:
        self._add(connection, event.stream, -event.value.cents)

    def clear(self, connection: Connection) -> None:
        connection.execute(delete(self.table))

    def _add(self, connection: Connection, account: str, cents: int) -> None:
        mine = self.table.c.account == account
        connection.execute(update(self.table).where(mine).values(cents=self.table.c.cents + cents))

    def rows(self) -> dict[str, int]:
        with self.engine.connect() as connection:
            return {row.account: row.cents for row in connection.execute(select(self.table))}

    def projection(
        self,
        store: EventStore,
        kind: type[Projection] = Projection,
        *,
        around: Callable[[Handler], Handler] = lambda handler: handler,
        **options: Any,
    ) -> Projection:
        """around: makes each handler into the one that is used."""
        handlers = {Opened: self.opened, Deposited: self.deposited, Withdrawn: self.withdrawn}
        changed = {event: around(handler) for event, handler in handlers.items()}
        return kind(self.table.name, store, changed, clear=self.clear, **options)


def account_store(engine: Engine, tables: Tables, **options: Any) -> EventStore:
    return EventStore(engine, account_types(), tables=tables, **options)


def balances_from_events(store: EventStore) -> dict[str, int]:
    """What the read model has to be, counted without it."""
    balances: dict[str, int] = {}
    for event in store.read_all():
        match event.value:
            case Opened():
                balances[event.stream] = 0
            case Deposited(cents):
                balances[event.stream] += cents
            case Withdrawn(cents):
                balances[event.stream] -= cents
    return balances
