"""The side that answers: two read models, each made of the same events for one question."""

from __future__ import annotations

from account import Deposited, Opened, Withdrawn
from sqlalchemy import BigInteger, Column, Connection, MetaData, String, Table, delete, insert, update

from messaging_sql import EventStore, Projection, Recorded

metadata = MetaData()
balances = Table(
    "bank_balances",
    metadata,
    Column("account", String(255), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("cents", BigInteger, nullable=False),
)
turnover = Table(
    "bank_turnover",
    metadata,
    Column("kind", String(255), primary_key=True),
    Column("events", BigInteger, nullable=False),
    Column("cents", BigInteger, nullable=False),
)


def opened(connection: Connection, event: Recorded) -> None:
    connection.execute(insert(balances).values(account=event.stream, owner=event.value.owner, cents=0))


def moved(connection: Connection, event: Recorded) -> None:
    cents = event.value.cents if isinstance(event.value, Deposited) else -event.value.cents
    mine = balances.c.account == event.stream
    connection.execute(update(balances).where(mine).values(cents=balances.c.cents + cents))


def counted(connection: Connection, event: Recorded) -> None:
    mine = turnover.c.kind == event.type
    more = {"events": turnover.c.events + 1, "cents": turnover.c.cents + event.value.cents}
    if not connection.execute(update(turnover).where(mine).values(more)).rowcount:
        connection.execute(insert(turnover).values(kind=event.type, events=1, cents=event.value.cents))


def clear_balances(connection: Connection) -> None:
    connection.execute(delete(balances))


def clear_turnover(connection: Connection) -> None:
    connection.execute(delete(turnover))


def read_models(store: EventStore) -> list[Projection]:
    return [
        Projection("bank-balances", store, {Opened: opened, Deposited: moved, Withdrawn: moved}, clear=clear_balances),
        Projection("bank-turnover", store, {Deposited: counted, Withdrawn: counted}, clear=clear_turnover),
    ]
