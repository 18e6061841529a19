"""What decides: its state comes from its events alone, and what it decides is new events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar


class Aggregate(ABC):
    """One thing that changes by events, for example a bank account.

        class Account(Aggregate):
            category = "account"
            balance = 0

            def withdraw(self, cents: int) -> None:      # decides
                if cents > self.balance:
                    raise ValueError("not enough money")
                self.record(Withdrawn(cents))

            def apply(self, event: object) -> None:      # changes, and never refuses
                match event:
                    case Withdrawn(cents):
                        self.balance -= cents

    category: with `id` it names the stream, `account-42`. version: of the last event that is stored, 0: none. pending:
    what was recorded since. One thread at a time.
    """

    category: ClassVar[str]

    def __init__(self, id: str) -> None:
        self.id = id
        self.version = 0
        self.pending: list[object] = []

    @abstractmethod
    def apply(self, event: object) -> None:
        """Changes the state as `event` says. It has happened, so this refuses nothing and does nothing else."""

    def record(self, event: object) -> None:
        """Applies a new event, and keeps it for the repository to store."""
        self.apply(event)
        self.pending.append(event)

    @property
    def stream(self) -> str:
        """The stream that its events are in."""
        return f"{self.category}-{self.id}"


class SnapshotAggregate(Aggregate):
    """An aggregate with many events, whose state can be saved and taken back.

    snapshot_type: what `snapshot` returns, for example a dataclass. snapshot_schema: raise it whenever that, or what
    `apply` makes of an event, changes; older snapshots are then passed over.
    """

    snapshot_type: ClassVar[Any]
    snapshot_schema: ClassVar[int] = 1

    @abstractmethod
    def snapshot(self) -> Any:
        """The state as a value that JSON can hold."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Takes back what `snapshot` returned."""
