"""The database of the clauses about the patterns on SQL. Can be imported without SQLAlchemy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from messaging.errors import Closed, ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from messaging_contract.bench import Bench
    from messaging_contract.sql.kinds import Kinds
    from messaging_contract.sql.scene import Scene
    from messaging_sql import Tables

PREFIX = "mc_"
"""What the name of every table begins with; 12 hexadecimal digits follow."""

_CONNECT = 10
_LOCKS = "10s"
"""As PostgreSQL writes it: what a clause that hangs has locked cannot be dropped, which is to be told and not waited
for."""


class Database:
    """url: SQLAlchemy's; None: SQLite in temporary files. kinds: what is tested, None: what `messaging_sql` exports.

    Raises ConfigurationError for a URL that is none, or of a database that is not supported. Thread-safe.
    """

    def __init__(self, url: str | None = None, kinds: Kinds | None = None) -> None:
        self._url = url
        self._kinds = kinds
        self._lock = Lock()
        self._missing: str | None = None
        self._version = ""
        self._made: dict[Scene, ExitStack] = {}
        self._ended = False
        if url is not None:
            _check(url)

    @property
    def version(self) -> str:
        """Such as `PostgreSQL 17.2`; empty when it is not there."""
        return "" if self.missing() else self._version

    def missing(self) -> str:
        """Why it cannot be used, empty when it can. Asks once: within about 10 seconds."""
        with self._lock:
            if self._missing is None:
                self._missing = self._ask()
            return self._missing

    def scene(self, bench: Bench) -> Scene:
        """New tables that nobody else has, until the scene is closed. Raises Closed after `close`."""
        from messaging_contract.sql.kinds import Kinds
        from messaging_contract.sql.scene import Scene
        from messaging_sql import Tables, create_tables

        with self.making():
            undo = ExitStack()
            engine = self._engine(undo)
            scene = Scene(bench, self, engine, Tables(prefix=f"{PREFIX}{uuid4().hex[:12]}_"), self._kinds or Kinds())
            # Before they are made: of what fails half way, something may be there.
            self._made[scene] = undo
            create_tables(engine, scene.tables)
        return scene

    @contextmanager
    def making(self) -> Iterator[None]:
        """While tables are made: those of a clause that is interrupted are dropped after that. Raises Closed."""
        with self._lock:
            if self._ended:
                raise Closed("the run has ended, and nothing is made any more")
            yield

    def remove(self, scene: Scene) -> None:
        """Drops the tables of `scene`. Idempotent. Raises SQLAlchemyError; then `close` tries once more."""
        with self._lock:
            undo = self._made.pop(scene, None)
        if undo is None:
            return
        try:
            _drop(scene.engine, scene.tables)
        except BaseException:
            with self._lock:
                self._made[scene] = undo
            raise
        undo.close()

    def close(self) -> None:
        """Removes what clauses that were interrupted have left; no tables are made from now on. Idempotent.

        Raises AssertionError with the names of what could not be dropped.
        """
        with self._lock:
            self._ended = True
            scenes = list(self._made)
        left: list[str] = []
        for scene in scenes:
            try:
                self.remove(scene)
            except Exception as error:
                left.append(f"{scene.tables.prefix}* ({str(error).splitlines()[0]})")
        assert not left, f"could not be dropped and is left in the database: {', '.join(left)}"

    def _ask(self) -> str:
        try:
            import sqlalchemy
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            return f'the patterns on SQL need {error.name}: python -m pip install "anybroker[sql]"'
        try:
            with ExitStack() as undo, self._engine(undo).connect() as connection:
                name = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}[connection.dialect.name]
                function = "sqlite_version()" if name == "SQLite" else "current_setting('server_version')"
                version = connection.scalar(sqlalchemy.text(f"select {function}"))
                self._version = f"{name} {str(version).split()[0]}"
        except ImportError as error:
            return f'the database needs {error.name}: python -m pip install "anybroker[postgresql]"'
        except SQLAlchemyError as error:
            return f"the database cannot be reached: {str(error).splitlines()[0]}"
        return ""

    def _engine(self, undo: ExitStack) -> Engine:
        from sqlalchemy import create_engine, event

        if self._url is not None:
            parsed = _parse(self._url)
            patience = {"connect_timeout": _CONNECT} if parsed.get_backend_name() == "postgresql" else {}
            engine = create_engine(parsed, connect_args=patience)
        else:
            folder = Path(tempfile.mkdtemp(prefix="messaging-contract-"))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            engine = create_engine(f"sqlite:///{folder / 'database'}?timeout=60")
            event.listen(engine, "connect", _hasty)
        undo.callback(engine.dispose)
        return engine


def _hasty(connection: Any, _record: Any) -> None:
    # The file does not outlive the clause, so nothing has to be on the disk.
    connection.execute("pragma synchronous=off")


def _drop(engine: Engine, tables: Tables) -> None:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"set local lock_timeout = '{_LOCKS}'")
        tables.metadata.drop_all(connection)


def _check(url: str) -> None:
    try:
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        return  # the clauses tell it
    try:
        backend = _parse(url).get_backend_name()
    except ArgumentError:
        raise ConfigurationError(
            "--database is not the URL of a database: use for example sqlite:///shop.db or "
            "postgresql+psycopg://user:password@host/shop"
        ) from None
    if backend not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"--database must be SQLite or PostgreSQL, not {backend}")


def _parse(url: str) -> Any:
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername in ("postgresql", "postgres") else parsed
