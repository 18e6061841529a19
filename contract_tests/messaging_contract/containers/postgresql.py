"""PostgreSQL, as in the official `postgres` image: for the patterns that need a database."""

from __future__ import annotations

import os
from typing import ClassVar

from messaging_contract.containers.base import BrokerContainer
from messaging_contract.containers.ports import HOST

IMAGE = "postgres:17"
VARIABLE = "MESSAGING_IMAGE_POSTGRES"

_PASSWORD = "messaging"


class PostgreSQLContainer(BrokerContainer):
    """One PostgreSQL server, empty. No broker, but started and disturbed as one."""

    port_inside: ClassVar[int] = 5432
    stop_signal: ClassVar[str | None] = "SIGINT"  # SIGTERM would wait for its clients to leave

    def __init__(self) -> None:
        super().__init__("postgresql", os.environ.get(VARIABLE) or IMAGE, VARIABLE)

    @property
    def url(self) -> str:
        """What SQLAlchemy's `create_engine` takes."""
        return f"postgresql+psycopg://postgres:{_PASSWORD}@{HOST}:{self.port}/postgres"

    def environment(self) -> dict[str, str]:
        return {"POSTGRES_PASSWORD": _PASSWORD}

    def answers(self) -> bool:
        import psycopg

        plain = self.url.replace("+psycopg", "")
        try:
            with psycopg.connect(plain, connect_timeout=3) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False
