"""What a clause about the patterns on SQL works with: tables of its own, and relays between them and the broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, Self, cast

from sqlalchemy import Column, Engine, Table, select

from messaging import Broker, Consumer, Message, PublishTimeout
from messaging.topology import Destination
from messaging_contract.sql.accounts import Balances, account_types
from messaging_contract.sql.database import Database
from messaging_contract.sql.kinds import Kinds
from messaging_sql import EventStore, Inbox, Outbox, Projection, Relay, Repository, Tables

if TYPE_CHECKING:
    from messaging_contract.bench import Bench

Found = tuple[str | None, int, str]
"""Key, number and id of a message."""


class Scene:
    """Made for one clause by `Bench.scene`. Its threads may use it."""

    def __init__(self, bench: Bench, database: Database, engine: Engine, tables: Tables, kinds: Kinds) -> None:
        self.bench, self.engine, self.tables = bench, engine, tables
        self._database, self._kinds = database, kinds
        self.outbox: Outbox = kinds.outbox(tables=tables)

    @property
    def several_writers(self) -> bool:
        """Whether two transactions can write at a time; SQLite lets one wait for the other."""
        return self.engine.dialect.name != "sqlite"

    def table(self, name: str, *columns: Column[Any]) -> Table:
        """A further table, which is dropped with the others."""
        with self._database.making():
            table = Table(f"{self.tables.prefix}{name}", self.tables.metadata, *columns)
            table.create(self.engine)
            return table

    def relay(self, broker: Broker | Gate | Refusing | None = None, **options: Any) -> Relay:
        """A relay, not started. It polls: whether it is told too depends on the database."""
        chosen = {"poll": 0.05, "listen": False, **options}
        return self._kinds.relay(self.engine, cast(Broker, broker or self.bench.broker), tables=self.tables, **chosen)

    def gate(self) -> Gate:
        """For a relay, instead of the broker."""
        return Gate(self.bench.broker, self.bench.patience)

    def refusing(self, destination: Destination) -> Refusing:
        """For a relay, instead of the broker."""
        return Refusing(self.bench.broker, destination.name)

    def add(self, destination: Destination, *pairs: tuple[str, int]) -> list[str]:
        """A message a (key, number), in a transaction of its own. Returns their ids."""
        with self.engine.begin() as connection:
            messages = [Message(str(number).encode(), key=key) for key, number in pairs]
            return self.outbox.add_many(connection, destination, messages)

    def waiting(self) -> int:
        """Rows that are neither published nor parked."""
        with self.engine.connect() as connection:
            return self.outbox.backlog(connection).waiting

    def published(self) -> None:
        """Waits until no row waits."""
        self.bench.eventually(lambda: self.waiting() == 0, lambda: f"{self.waiting()} rows still wait in the outbox")

    def rounds_pass(self, relay: Relay, count: int = 3) -> None:
        """Returns when `relay` has looked at the outbox `count` times from now on."""
        before = relay.stats.rounds
        self.bench.eventually(lambda: relay.stats.rounds > before + count, f"{count} rounds of a relay")

    def read(self, consumer: Consumer, count: int) -> list[Found]:
        """Receives and acks so many messages, which `add` has made."""
        found: list[Found] = []

        def all_there() -> bool:
            for delivery in consumer.receive(count - len(found), 0.2):
                found.append((delivery.key, int(delivery.body), delivery.id))
                delivery.ack()
            return len(found) == count

        self.bench.eventually(all_there, lambda: f"{count} messages of {consumer.source}, there were {found}")
        return found

    def nothing_more(self, consumer: Consumer, seconds: float = 0.0) -> None:
        """Asserts that nothing comes for `seconds`, or what proves absence where that is longer."""
        found = consumer.receive(100, max(self.bench.harness.quiet, seconds))
        assert not found, f"{consumer.source} delivered {found} where nothing was to come"

    def inbox(self, subscriber: str) -> Inbox:
        return self._kinds.inbox(subscriber, tables=self.tables)

    def store(self, **options: Any) -> EventStore:
        """Of accounts."""
        return self._kinds.store(self.engine, account_types(), tables=self.tables, **options)

    def repository(self, store: EventStore, aggregate: Callable[[str], Any], **options: Any) -> Repository[Any]:
        return self._kinds.repository(store, aggregate, **options)

    def balances(self) -> Balances:
        """The read model, in a table of this scene."""
        with self._database.making():
            return Balances(self.engine, self.tables.metadata, f"{self.tables.prefix}balances")

    def projection(self, balances: Balances, store: EventStore, **options: Any) -> Projection:
        return balances.projection(store, self._kinds.projection, **options)

    def outbox_ids(self) -> list[str]:
        """Of the messages in the outbox, in order."""
        outbox = self.tables.outbox
        with self.engine.connect() as connection:
            return [str(found) for found in connection.scalars(select(outbox.c.id).order_by(outbox.c.position))]

    def close(self) -> None:
        """Drops the tables. Idempotent."""
        self._database.remove(self)


class Gate:
    """Stands for a broker, and holds whoever publishes to it up, from the first message on until it is opened."""

    def __init__(self, broker: Broker, patience: float) -> None:
        self._broker, self._patience = broker, patience
        self._entered, self._open = Event(), Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def producer(self, **options: Any) -> Any:
        return _GatedProducer(self._broker.producer(**options), self)

    def wait(self) -> None:
        """Until somebody stands before it."""
        assert self._entered.wait(self._patience), f"nothing was published within {self._patience:g} s"

    def open(self) -> None:
        self._open.set()

    def pass_through(self) -> None:
        self._entered.set()
        self._open.wait(2 * self._patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


class Refusing:
    """Stands for a broker of which one destination confirms nothing until it is mended, as when it is full."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self.name: str | None = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def producer(self, **options: Any) -> Any:
        return _RefusingProducer(self._broker.producer(**options), self)

    def mend(self) -> None:
        self.name = None


class _RefusingProducer:
    def __init__(self, producer: Any, broker: Refusing) -> None:
        self._producer, self._broker = producer, broker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish_many(self, destination: str, messages: Sequence[Message]) -> Any:
        if destination == self._broker.name:
            raise PublishTimeout(f"publish to {destination!r}: not confirmed in time")
        return self._producer.publish_many(destination, messages)


class _GatedProducer:
    def __init__(self, producer: Any, gate: Gate) -> None:
        self._producer, self._gate = producer, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish_many(self, destination: Any, messages: Sequence[Message]) -> Any:
        self._gate.pass_through()
        return self._producer.publish_many(destination, messages)
