from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import create_engine, update

import messaging
from messaging import Queue
from messaging_contract.harness import Harness
from messaging_sql import Outbox
from messaging_sql.database import now
from messaging_sql.tables import default_tables

Run = Callable[..., tuple[int, str]]
DATABASE = "sqlite:///shop.db"


def test_tables_are_created_and_then_used(run: Run) -> None:
    status, output = run("outbox", "status", "--database", DATABASE)
    assert (status, "messaging tables create --database URL" in output) == (2, True)
    assert run("tables", "create", "--database", DATABASE)[0] == 0
    assert run("tables", "create", "--database", DATABASE)[0] == 0
    status, output = run("outbox", "status", "--database", DATABASE)
    assert (status, output) == (0, "0 waiting, the oldest for 0 s; 0 of them failed before; 0 parked\n")


def test_parked_rows(run: Run) -> None:
    run("tables", "create", "--database", DATABASE)
    engine = create_engine(DATABASE)
    with engine.begin() as connection:
        first, second = Outbox().add_many(connection, "orders", [1, 2])
        connection.execute(update(default_tables().outbox).values(parked_at=now(), error="too [large]", attempts=5))
    assert "too [large]" in run("outbox", "parked", "--database", DATABASE)[1]
    listed = json.loads(run("outbox", "parked", "--database", DATABASE, "--json")[1])
    assert {row["id"] for row in listed} == {first, second}
    assert run("outbox", "requeue", "--database", DATABASE)[0] == 2
    assert run("outbox", "requeue", first, "--database", DATABASE)[1] == "1 requeued\n"
    assert run("outbox", "discard", second, "--database", DATABASE)[0] == 1
    assert run("outbox", "discard", second, "--yes", "--database", DATABASE)[1] == "1 dropped\n"
    assert json.loads(run("outbox", "status", "--database", DATABASE, "--json")[1])["waiting"] == 1
    assert run("outbox", "requeue", str(uuid.uuid4()), "--database", DATABASE)[1] == "0 requeued\n"
    engine.dispose()


def test_bad_databases(run: Run) -> None:
    for url, words in (("shop.db", "is not the URL of a database"), ("mysql://host/shop", "SQLite or PostgreSQL")):
        status, output = run("tables", "create", "--database", url)
        assert (status, words in output) == (2, True)
    status, output = run("outbox", "relay", "--database", DATABASE)
    assert (status, "no [topology] is configured" in output) == (2, True)


def test_a_database_that_is_down(run: Run) -> None:
    status, output = run("outbox", "status", "--database", "postgresql://nobody@127.0.0.1:1/none")
    assert (status, output.count("\n"), output.startswith("messaging: the database")) == (1, 1, True)


def test_a_broker_that_ends_with_the_command_gets_nothing(run: Run, tmp_path: Path) -> None:
    run("tables", "create", "--database", DATABASE)
    (tmp_path / "messaging.toml").write_text("[topology.queues.orders]\n")
    engine = create_engine(DATABASE)
    with engine.begin() as connection:
        Outbox().add(connection, "orders", 1)
    for where in ((), ("--broker", "memory://")):
        status, output = run("outbox", "relay", "--database", DATABASE, *where)
        assert (status, "name the broker with --broker" in output) == (2, True)
    with engine.connect() as connection:
        assert Outbox().backlog(connection).waiting == 1
    engine.dispose()


def test_the_relay_runs_until_sigterm(run: Run, tmp_path: Path, sqs: Harness, eventually: Callable[..., None]) -> None:
    own = f"orders-{uuid.uuid4().hex[:12]}"
    run("tables", "create", "--database", DATABASE)
    (tmp_path / "messaging.toml").write_text(f"[topology.queues.{own}]\n")
    engine = create_engine(DATABASE)
    with engine.begin() as connection:
        Outbox().add_many(connection, own, list(range(10)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MESSAGING_")}
    command = [
        sys.executable,
        "-m",
        "messaging.cli",
        "outbox",
        "relay",
        "--database",
        DATABASE,
        "--broker",
        str(sqs.url),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:

        def empty() -> bool:
            with engine.connect() as connection:
                return Outbox().backlog(connection).waiting == 0

        eventually(empty, 30)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=20)[1]
    assert (process.returncode, errors.splitlines()) == (
        0,
        ["publishing to sqs", "10 published, 0 attempts failed, 0 rows parked"],
    )
    with messaging.connect(str(sqs.url), topology=Queue(own), create=False) as broker:
        assert broker.depth(Queue(own)) == 10
        broker.delete(Queue(own))
    engine.dispose()
