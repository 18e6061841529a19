"""The hint that there is something to publish: LISTEN and NOTIFY on PostgreSQL. Whoever misses it looks anyway."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from messaging_sql.tables import Tables

log = logging.getLogger("messaging.outbox")

_LOOK = 0.5
"""Seconds after which the listener looks whether it is to end."""

_AGAIN = 5.0
"""Seconds until a lost connection is tried again. Polling goes on meanwhile."""


def channel(tables: Tables) -> str:
    """The name that is notified. Identifiers of PostgreSQL have 63 bytes at most."""
    return tables.outbox.fullname.replace(".", "_")[:63]


class Listener:
    """Calls `wake` when something was added to the outbox. Needs a connection of its own, which no pooler may share.

    name: what is listened to instead of the outbox.
    `start` and `stop` belong to one thread; `wake` is called on another.
    """

    def __init__(self, engine: Engine, tables: Tables, wake: Callable[[], None], name: str | None = None) -> None:
        self._engine = engine
        self._channel = name or channel(tables)
        self._wake = wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, in about half a second."""
        self._stop.set()
        self._thread.join(10 * _LOOK)

    def _run(self) -> None:
        import psycopg  # an extra; there, since the engine is PostgreSQL's

        while not self._stop.is_set():
            try:
                self._listen()
            except (SQLAlchemyError, psycopg.Error) as error:
                log.info("no LISTEN for now, polling goes on: %s", str(error).strip())
                self._stop.wait(_AGAIN)

    def _listen(self) -> None:
        connection = self._engine.raw_connection()
        try:
            native: Any = connection.driver_connection
            connection.detach()  # not back into the pool, where the next user would find it listening
            native.rollback()
            native.autocommit = True
            name = self._channel.replace('"', '""')
            native.execute(f'LISTEN "{name}"')
            self._wake()  # what came before it listened
            while not self._stop.is_set():
                for _ in native.notifies(timeout=_LOOK, stop_after=1):
                    self._wake()
        finally:
            connection.close()
