"""The oracle: what was attempted, confirmed, received and settled, and what does not add up.

After Jepsen's total-queue checker: lost (confirmed, never received), unexpected (received, never attempted),
duplicated (received again without a reason), recovered (outcome unknown, received all the same).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from messaging.delivery import Delivery
from messaging.errors import BatchPublishFailed, MessagingError
from messaging.message import Message

TEST_ID = "test-id"
"""The header that tells the messages of one clause from everybody else's."""

_NUMBER: Any = object()


@dataclass(frozen=True)
class Account:
    """What does not add up, as message ids. `reordered`: pairs of one key that arrived the wrong way round."""

    lost: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()
    reordered: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = []
        for name in ("lost", "unexpected", "duplicated", "recovered", "reordered"):
            found: Sequence[object] = getattr(self, name)
            if found:
                shown = ", ".join(map(str, found[:5])) + (" ..." if len(found) > 5 else "")
                parts.append(f"{len(found)} {name} ({shown})")
        return "; ".join(parts) or "balanced"


@dataclass
class Ledger:
    """The messages of one destination, as one set of consumers should see them. Thread-safe (`_lock` guards all).

    Several subscriptions of a topic each get their own `view`, which shares what was published.
    """

    test_id: str
    name: str
    attempted: dict[str, Message] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    received: list[str] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def view(self, name: str) -> Ledger:
        """A ledger of the same messages with its own receiving side."""
        return Ledger(
            self.test_id, f"{self.name}/{name}", self.attempted, self.confirmed, self.refused, _lock=self._lock
        )

    def message(self, value: Any = _NUMBER, *, headers: dict[str, str] | None = None, **fields: Any) -> Message:
        """A message with an id of its own and the test id, noted as attempted. Its value when left out: its number."""
        with self._lock:
            number = len(self.attempted)
            id = fields.pop("id", None) or f"{self.test_id}-{self.name}-{number}"
            body = {"n": number} if value is _NUMBER else value
            message = Message.of(body, id=id, headers={TEST_ID: self.test_id, **(headers or {})}, **fields)
            self.attempted[id] = message
            return message

    def messages(self, count: int, *, keys: int = 0, **fields: Any) -> list[Message]:
        """`count` messages; with `keys`, spread over that many keys `k0`, `k1` ..."""
        return [self.message(**{**fields, **({"key": f"k{number % keys}"} if keys else {})}) for number in range(count)]

    def confirm(self, ids: str | Iterable[str]) -> None:
        """The broker confirmed these."""
        with self._lock:
            self.confirmed.update([ids] if isinstance(ids, str) else ids)

    def publish(self, producer: Any, destination: Any, messages: Message | list[Message], **options: Any) -> list[str]:
        """Publishes through a broker or producer and notes what was confirmed, also when some of it failed."""
        if isinstance(messages, Message):
            return [self.publish_one(producer, destination, messages, **options)]
        try:
            ids: list[str] = producer.publish_many(destination, messages, **options)
        except BatchPublishFailed as failed:
            self.confirm(m.id for n, m in enumerate(messages) if n not in failed.failures)
            for number, error in failed.failures.items():
                self._refuse(messages[number], error)
            raise
        self.confirm(ids)
        return ids

    def publish_one(self, producer: Any, destination: Any, message: Message, **options: Any) -> str:
        """Publishes one message. Unless the error leaves the outcome open, a failed one must never be received."""
        try:
            id: str = producer.publish(destination, message, **options)
        except MessagingError as error:
            self._refuse(message, error)
            raise
        self.confirm(id)
        return id

    def owns(self, delivery: Delivery) -> bool:
        """Whether it belongs to the clause this ledger is of. What does not is foreign, and ignored."""
        return delivery.headers.get(TEST_ID) == self.test_id

    def receive(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Notes what was received and returns it without foreign messages."""
        own = [delivery for delivery in deliveries if self.owns(delivery)]
        with self._lock:
            self.received.extend(delivery.id for delivery in own)
        return own

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Notes that these were acked or rejected: they must not come again."""
        with self._lock:
            self.settled.update(delivery.id for delivery in deliveries)

    @property
    def missing(self) -> set[str]:
        """Confirmed and not yet received."""
        with self._lock:
            return self.confirmed.difference(self.received)

    def account(self, only: Iterable[str] | None = None) -> Account:
        """What does not add up. `only`: the ids this view should get (a routing pattern); default all."""
        with self._lock:
            due = self.attempted.keys() if only is None else set(only)
            counts = Counter(self.received)
            return Account(
                lost=tuple(i for i in self.attempted if i in self.confirmed and i in due and i not in counts),
                unexpected=tuple(i for i in counts if i not in self.attempted or i not in due or i in self.refused),
                duplicated=tuple(i for i, n in counts.items() if n > 1),
                recovered=tuple(
                    i for i in counts if i in self.attempted and i not in self.confirmed and i not in self.refused
                ),
                reordered=tuple(self._reordered()),
            )

    def check(
        self, *, duplicates: bool = False, ordered: bool = False, recovered: bool = False, only: Any = None
    ) -> Account:
        """Asserts that it balances; the arguments allow duplicates and unknown outcomes, and demand order per key."""
        account = self.account(only)
        wrong = Account(
            lost=account.lost,
            unexpected=account.unexpected,
            duplicated=() if duplicates else account.duplicated,
            recovered=() if recovered else account.recovered,
            reordered=account.reordered if ordered else (),
        )
        assert wrong == Account(), f"{self.name}: {wrong}, of {len(self.confirmed)} confirmed messages"
        return account

    def _refuse(self, message: Message, error: MessagingError) -> None:
        """Notes that it must not arrive, unless the error leaves open whether it was stored."""
        if not error.retryable:
            with self._lock:
                self.refused.add(message.id)

    def _reordered(self) -> Iterable[tuple[str, str]]:
        position = {id: number for number, id in enumerate(self.attempted)}
        latest: dict[str | None, str] = {}
        seen: set[str] = set()
        for id in self.received:
            if id in seen or id not in self.attempted:
                continue
            seen.add(id)
            key = self.attempted[id].key
            before = latest.get(key)
            if before is not None and position[before] > position[id]:
                yield before, id
            else:
                latest[key] = id
