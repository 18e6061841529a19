"""Saboteurs of outbox, relay and inbox. Needs SQLAlchemy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from messaging import Message
from messaging.errors import MessagingError
from messaging_sql import Inbox, Outbox, Relay
from messaging_sql.database import insert_new, now
from messaging_sql.publishing import Outcome, Publishing
from messaging_sql.waiting import Waiting


class AddsApart(Outbox):
    """Adds in a transaction of its own: published whatever becomes of the caller's."""

    def add_many(self, connection: Connection, *arguments: Any) -> list[str]:
        with connection.engine.begin() as other:
            return super().add_many(other, *arguments)


class _Sabotaged(Relay):
    waiting: type[Waiting] = Waiting
    publishing: type[Publishing] = Publishing

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting = self.waiting(self._tables, self.owner)
        self._publishing = self.publishing(arguments[1], self._lease / 3)


class IgnoresLeases(_Sabotaged):
    """Takes a row that another relay is publishing."""

    class waiting(Waiting):
        def claim(self, connection: Connection, *arguments: Any) -> list[int]:
            connection.execute(update(self._lanes).values(lease_until=None))
            return super().claim(connection, *arguments)


class SharesKeys(IgnoresLeases):
    """Takes every row that no other relay has in hand, also later ones of its keys."""

    class waiting(IgnoresLeases.waiting):
        def read(self, connection: Connection, lanes: Sequence[int], most: int, held: Collection[str] = ()) -> Any:
            outbox = self._outbox
            # The error of a row stands for the mark that such relays put on it.
            rows = [row for row in super().read(connection, lanes, 1000, held) if row.error is None][:most]
            mine = outbox.c.position.in_([row.position for row in rows])
            connection.execute(update(outbox).where(mine).values(error="taken"))
            return rows


class NeverTakesOver(_Sabotaged):
    """Leaves what a crashed relay had in hand for ever."""

    class waiting(Waiting):
        def claim(self, connection: Connection, *arguments: Any) -> list[int]:
            taken = and_(self._lanes.c.owner.is_not(None), self._lanes.c.owner != self._owner)
            connection.execute(update(self._lanes).where(taken).values(lease_until=now() + 3600))
            return super().claim(connection, *arguments)


class PollsHotly(_Sabotaged):
    """Looks again at once when there was nothing."""

    def _next_look(self) -> float:
        return 0.0


class LetsLaterRowsPass(_Sabotaged):
    """Lets the next row of a key pass one that failed and waits."""

    class waiting(Waiting):
        def _sendable(self, held: Collection[str], anything_fails: bool) -> ColumnElement[bool]:
            c = self._outbox.c
            return and_(c.parked_at.is_(None), or_(c.retry_at.is_(None), c.retry_at <= now()))


class DropsWhatFails(_Sabotaged):
    """Takes out a row that could not be published."""

    class waiting(Waiting):
        def fail(self, connection: Connection, failed: Any, first_delay: float, park_after: int | None) -> int:
            self.remove(connection, list(failed))
            return 0


class Hammers(_Sabotaged):
    """Tries a row that failed again at once."""

    class waiting(Waiting):
        def fail(self, connection: Connection, failed: Any, first_delay: float, park_after: int | None) -> int:
            return super().fail(connection, failed, 0.0, park_after)


class TakesOutFirst(_Sabotaged):
    """Takes rows out before they are published: a crash between the two loses them."""

    class waiting(Waiting):
        def read(self, connection: Connection, *arguments: Any) -> Any:
            rows = super().read(connection, *arguments)
            self.remove(connection, [row.position for row in rows])
            return rows


class StopsForOneTopic(_Sabotaged):
    """Takes one destination that confirms nothing for a broker that is down."""

    class publishing(Publishing):
        def _publish_part(self, topic: str, rows: list[Any], outcome: Outcome) -> None:
            super()._publish_part(topic, rows, outcome)
            outcome.broker = outcome.held.pop(topic, outcome.broker)


class GivesNewIds(_Sabotaged):
    """Publishes under a new id, each time."""

    class publishing(Publishing):
        def _send(self, topic: str, messages: list[Message]) -> list[MessagingError | None]:
            return super()._send(topic, [replace(message, id="") for message in messages])


class ForgetsOnStop(_Sabotaged):
    """Does not take out what it published when it is stopped meanwhile."""

    def _settle(self, outcome: Outcome) -> None:
        if not self._stop.is_set():
            super()._settle(outcome)


class KeepsLanesOnStop(_Sabotaged):
    """Does not give back the rest when it is stopped."""

    class waiting(Waiting):
        def release(self, connection: Connection) -> None:
            pass


class GoesOnThroughStop(_Sabotaged):
    """Publishes the whole batch before it stops, however long that takes."""

    def _publish(self, lanes: Sequence[int], rows: Sequence[Any], claimed: float, outcome: Outcome) -> None:
        self._publishing.publish(rows, lambda: True, outcome)


class ReadsFromACursor(_Sabotaged):
    """Goes on from the highest row it has read: what commits later with a lower number is lost."""

    class waiting(Waiting):
        last = 0

        def read(self, connection: Connection, *arguments: Any) -> Any:
            rows = [row for row in super().read(connection, *arguments) if row.position > self.last]
            self.last = max([self.last, *(row.position for row in rows)])
            return rows


class AsksFirst(Inbox):
    """Looks first and writes then: two at once both find nothing."""

    def first_time(self, connection: Connection, delivery: Any) -> bool:
        inbox = self._tables.inbox
        mine = and_(inbox.c.subscriber == self.subscriber, inbox.c.message_id == delivery)
        if connection.scalar(select(inbox.c.message_id).where(mine)) is not None:
            return False
        connection.execute(insert_new(connection, inbox).values(self._row(delivery)))
        return True


class RemembersApart(Inbox):
    """Remembers in a transaction of its own: what is rolled back counts as handled."""

    def first_time(self, connection: Connection, delivery: Any) -> bool:
        with connection.engine.begin() as other:
            return super().first_time(other, delivery)


class SharesMemory(Inbox):
    """Has one memory for all subscribers."""

    def _row(self, message_id: str) -> dict[str, Any]:
        return {**super()._row(message_id), "subscriber": "all"}


class ForgetsMessages(Inbox):
    """Takes every delivery for a message of its own."""

    _number = count()

    def first_time(self, connection: Connection, delivery: Any) -> bool:
        return super().first_time(connection, str(next(self._number)))
