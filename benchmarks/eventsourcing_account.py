"""The bank account as the library `eventsourcing` has it done. A module of its own: it finds events by their names."""

from __future__ import annotations

from eventsourcing.domain import Aggregate, event


class EventsourcingAccount(Aggregate):
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = 0

    @event("Deposited")
    def deposit(self, cents: int, text: str) -> None:
        self.balance += cents
