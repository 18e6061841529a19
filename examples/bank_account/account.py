"""The side that decides: an account and its events. It knows no database and no broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from messaging_sql import EventTypes, SnapshotAggregate


@dataclass(frozen=True)
class Opened:
    owner: str
    currency: str


@dataclass(frozen=True)
class Deposited:
    cents: int


@dataclass(frozen=True)
class Withdrawn:
    cents: int


def with_currency(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "currency": "EUR"}  # what every account had before there were others


EVENTS = EventTypes()
EVENTS.add("account.opened", Opened, version=2, upcasts={1: with_currency})
EVENTS.add("account.deposited", Deposited)
EVENTS.add("account.withdrawn", Withdrawn)


@dataclass(frozen=True)
class State:
    balance: int


class Account(SnapshotAggregate):
    category = "account"
    snapshot_type = State
    balance = 0

    def open(self, owner: str, currency: str = "EUR") -> None:
        self.record(Opened(owner, currency))

    def deposit(self, cents: int) -> None:
        if cents <= 0:
            raise ValueError(f"{cents} cents cannot be deposited")
        self.record(Deposited(cents))

    def withdraw(self, cents: int) -> None:
        if cents > self.balance:
            raise ValueError(f"{cents} cents of {self.balance} cannot be withdrawn")
        self.record(Withdrawn(cents))

    def apply(self, event: object) -> None:
        match event:
            case Deposited(cents):
                self.balance += cents
            case Withdrawn(cents):
                self.balance -= cents

    def snapshot(self) -> State:
        return State(self.balance)

    def restore(self, state: State) -> None:
        self.balance = state.balance
