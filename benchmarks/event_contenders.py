"""Who is measured as an event store: the same bank account, written as each library has it done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import URL, create_engine, text

from messaging_sql import Aggregate, EventStore, EventTypes, Repository, Tables, create_tables


class EventContender(ABC):
    """One library on one database, with tables of its own."""

    name = ""

    def __init__(self, database: URL, schema: str, folder: Path) -> None:
        self.database = database
        self.schema = schema
        self.folder = folder

    @abstractmethod
    def open(self) -> None:
        """Connects and makes the tables."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the connections."""

    @abstractmethod
    def new_accounts(self, count: int) -> list[Any]:
        """Opens accounts and stores them."""

    @abstractmethod
    def deposit(self, account: Any, times: int) -> None:
        """So many events, stored in one commit."""

    @abstractmethod
    def load(self, account: Any) -> int:
        """Makes the account again, from its events alone; returns its balance."""

    @abstractmethod
    def follow(self) -> int:
        """Reads every event of the store as its class, in order, as a projection would. Returns how many."""


@dataclass(frozen=True)
class Opened:
    owner: str


@dataclass(frozen=True)
class Deposited:
    cents: int
    text: str


class Account(Aggregate):
    category = "account"
    balance = 0

    def open(self, owner: str) -> None:
        self.record(Opened(owner))

    def deposit(self, cents: int, text: str) -> None:
        self.record(Deposited(cents, text))

    def apply(self, event: object) -> None:
        match event:
            case Deposited(cents):
                self.balance += cents


class Ours(EventContender):
    name = "anybroker"

    def open(self) -> None:
        sqlite = self.database.drivername == "sqlite"
        url = self.database.set(database=str(self.folder / "ours.db")) if sqlite else self.database
        self._engine = create_engine(url)
        if sqlite:
            with self._engine.connect() as connection:
                connection.execute(text("PRAGMA journal_mode=WAL"))  # as the other has it
        tables = Tables(None if sqlite else self.schema)
        create_tables(self._engine, tables)
        types = EventTypes()
        types.add("account.opened", Opened)
        types.add("account.deposited", Deposited)
        self._store = EventStore(self._engine, types, tables=tables)
        self._accounts = Repository(self._store, Account)

    def close(self) -> None:
        self._engine.dispose()

    def new_accounts(self, count: int) -> list[Account]:
        accounts = []
        for _ in range(count):
            account = Account(str(uuid4()))
            account.open("Ada")
            self._accounts.save(account)
            accounts.append(account)
        return accounts

    def deposit(self, account: Account, times: int) -> None:
        for number in range(times):
            account.deposit(number, "rent for the month")
        self._accounts.save(account)

    def load(self, account: Account) -> int:
        return self._accounts.load(account.id).balance

    def follow(self) -> int:
        return sum(event.value is not None for event in self._store.read_all())


class Eventsourcing(EventContender):
    """https://pypi.org/project/eventsourcing, its aggregate, application and notification log, all defaults."""

    name = "eventsourcing"
    functions = False

    def open(self) -> None:
        from eventsourcing.application import Application

        from benchmarks.eventsourcing_account import EventsourcingAccount

        self._account = EventsourcingAccount
        url = self.database
        if url.drivername == "sqlite":
            settings = {
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(self.folder / f"{self.name}.db"),
            }
        else:
            settings = {
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": url.database or "",
                "POSTGRES_HOST": url.host or "localhost",
                "POSTGRES_PORT": str(url.port or 5432),
                "POSTGRES_USER": url.username or "",
                "POSTGRES_PASSWORD": str(url.password or "none"),
                "POSTGRES_SCHEMA": self.schema,
                "POSTGRES_ENABLE_DB_FUNCTIONS": "yes" if self.functions else "no",
            }
        self._application: Any = Application(env=settings)

    def close(self) -> None:
        self._application.close()

    def new_accounts(self, count: int) -> list[Any]:
        accounts = []
        for _ in range(count):
            account = self._account("Ada")
            self._application.save(account)
            accounts.append(account)
        return accounts

    def deposit(self, account: Any, times: int) -> None:
        for number in range(times):
            account.deposit(number, "rent for the month")
        self._application.save(account)

    def load(self, account: Any) -> int:
        id: UUID = account.id
        balance: int = self._application.repository.get(id).balance
        return balance

    def follow(self) -> int:
        count, start = 0, 1
        while True:
            found = self._application.recorder.select_notifications(start, 1000)
            for notification in found:
                count += self._application.mapper.to_domain_event(notification) is not None
            if len(found) < 1000:
                return count
            start = found[-1].id + 1


class EventsourcingFunctions(Eventsourcing):
    """With its functions in the database, on PostgreSQL: one round trip an append."""

    name = "eventsourcing, database functions"
    functions = True
