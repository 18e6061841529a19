"""The idempotent consumer: a message that is delivered again has no second effect."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete

from messaging.delivery import Delivery
from messaging.errors import ConfigurationError, InvalidMessage
from messaging.handling import discard, is_async
from messaging_sql.database import explained, insert_new, now, transaction
from messaging_sql.tables import Tables, default_tables

_AT_A_TIME = 1000
"""Ids in one statement: databases bound how many parameters it may have."""

_LONGEST = 255


class Inbox:
    """Remembers which messages a subscriber has handled, in the transaction that holds their effect.

        inbox = Inbox("payment")

        with engine.begin() as connection:
            if inbox.first_time(connection, delivery):
                charge(connection, delivery.value)

    subscriber: who handles; each has a memory of its own. Immutable; any thread may use it.
    """

    def __init__(self, subscriber: str, *, tables: Tables | None = None) -> None:
        if not subscriber or len(subscriber) > _LONGEST:
            raise ConfigurationError(f"an inbox needs the name of a subscriber, 1 to {_LONGEST} characters")
        self.subscriber = subscriber
        self._tables = tables or default_tables()

    def first_time(self, connection: Connection, delivery: Delivery | str) -> bool:
        """Whether the message (a delivery, or its id) was not handled before; from now on it was, once this commits.

        While another transaction handles the same message, this waits for its end: False when it commits, True when
        it rolls back. Raises InvalidMessage for a message without id, TablesMissing, DatabaseUnavailable.
        """
        message_id = _id(delivery)
        with explained(self._tables, connection):
            inbox = self._tables.inbox
            statement = insert_new(connection, inbox).values(self._row(message_id)).returning(inbox.c.message_id)
            return connection.scalar(statement) is not None

    def only_new(self, connection: Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of `deliveries` that were not handled before, in order, each message once. As `first_time`, but fast.

        The effects of all of them belong into this transaction.
        """
        first: dict[str, Delivery] = {}
        for delivery in deliveries:
            first.setdefault(_id(delivery), delivery)
        inbox = self._tables.inbox
        new: set[str] = set()
        ids = sorted(first)  # in one order everywhere, or two transactions could wait for each other
        with explained(self._tables, connection):
            for start in range(0, len(ids), _AT_A_TIME):
                rows = [self._row(message_id) for message_id in ids[start : start + _AT_A_TIME]]
                statement = insert_new(connection, inbox).values(rows).returning(inbox.c.message_id)
                new.update(connection.scalars(statement))
        return [delivery for message_id, delivery in first.items() if message_id in new]

    def forget(self, connection: Connection, older_than: float) -> int:
        """Forgets what was handled more than `older_than` seconds ago; returns how many that were.

        It must be longer than a message can still come again: retries, redrives of dead letters, replays.
        """
        if not 0 < older_than < math.inf:
            raise ConfigurationError(f"older_than must be a positive number of seconds, not {older_than!r}")
        inbox = self._tables.inbox
        old = (inbox.c.subscriber == self.subscriber) & (inbox.c.seen_at < now() - older_than)
        with explained(self._tables, connection):
            return connection.execute(delete(inbox).where(old)).rowcount

    def handler(self, engine: Engine) -> Callable[[Callable[[Connection, Delivery], Any]], Callable[[Delivery], None]]:
        """Makes a Worker's handler of a function that takes a connection and a delivery.

            @worker.on("orders", group="payment")
            @inbox.handler(engine)
            def pay(connection, delivery): ...

        The function runs in a transaction of its own, and not at all for a message that was handled before. When it
        raises, nothing of it is kept and the worker tries again. Raises ConfigurationError for `async def`, and for a
        function with a `yield`.
        """

        def wrap(function: Callable[[Connection, Delivery], Any]) -> Callable[[Delivery], None]:
            if is_async(function):
                raise ConfigurationError(f"{function!r} is async, and the inbox's transaction is not: use a plain def")

            @functools.wraps(function)
            def handle(delivery: Delivery) -> None:
                with transaction(engine, self._tables) as connection:
                    if self.first_time(connection, delivery):
                        result = function(connection, delivery)
                        if inspect.isawaitable(result):  # nothing was handled: it must not be remembered
                            discard(result)
                            raise TypeError("the handler returned an awaitable: the inbox's is a plain function")

            # `wraps` would let a worker see the two parameters of the function.
            del handle.__wrapped__
            return handle

        return wrap

    def _row(self, message_id: str) -> dict[str, Any]:
        return {"subscriber": self.subscriber, "message_id": message_id, "seen_at": now()}


def _id(delivery: Delivery | str) -> str:
    found = delivery if isinstance(delivery, str) else delivery.id
    if not found:
        raise InvalidMessage(
            f"{delivery!r} has no id, so the inbox cannot tell whether it came before: the producer has to give it one"
        )
    if len(found) > _LONGEST:
        raise InvalidMessage(f"the inbox remembers ids of up to {_LONGEST} characters, this one has {len(found)}")
    return found
