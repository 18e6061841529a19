"""`messaging outbox`: the relay, and the rows that it gave up."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from messaging.cli.console import console
from messaging.cli.database import PREFIX, Prefix, Schema, Url, opened
from messaging.cli.errors import FAILED, say_error
from messaging.cli.topology_input import connected
from messaging.config import load
from messaging.errors import ConfigurationError
from messaging.topology_file import read_topology

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from messaging_sql import Outbox

app = typer.Typer(no_args_is_help=True, help="Publish what waits in the outbox, and look after what could not be.")

Target = Annotated[str | None, typer.Option("--broker", help="A URL or profile. Without it: as `connect` finds it.")]
File = Annotated[Path | None, typer.Option("--file", help="The configuration file. Without it: as `connect` finds it.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which ones.")]


@contextmanager
def _outbox(database: str, schema: str | None, prefix: str) -> Iterator[tuple[Outbox, Connection]]:
    """The outbox there, and a transaction."""
    with opened(database, schema, prefix) as (engine, tables):
        from messaging_sql import Outbox
        from messaging_sql.database import transaction

        with transaction(engine, tables) as connection:
            yield Outbox(tables=tables), connection


@app.command("relay")
def relay(
    database: Url,
    broker: Target = None,
    file: File = None,
    schema: Schema = None,
    prefix: Prefix = PREFIX,
    batch: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 1000,
    lease: Annotated[float, typer.Option(help="Seconds that a crashed relay holds up its keys.")] = 30.0,
    poll: Annotated[float, typer.Option(help="Seconds between two looks when nothing waits.")] = 1.0,
    park_after: Annotated[
        int, typer.Option(min=0, help="Attempts after which a row that cannot be published is parked; 0: never.")
    ] = 5,
) -> None:
    """Publish what waits in the outbox until SIGTERM or Ctrl-C. Any number of relays may run.

    The topics are those that the configuration file declares.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    settings = load(file)
    topology = read_topology(settings.get("topology", {}))
    if not len(topology):
        raise ConfigurationError(
            "no [topology] is configured: declare the topics of the outbox in messaging.toml, or name it with --file"
        )
    with opened(database, schema, prefix) as (engine, tables), connected(settings, broker) as there:
        from messaging_sql import Relay

        if there.driver.in_process:
            raise ConfigurationError(
                f"the {there.name} broker ends with this command, and so would all that it publishes: name the broker "
                "with --broker, MESSAGING_URL or a profile in messaging.toml; nothing was taken out of the outbox"
            )
        there.broker.declare(topology)
        running = Relay(
            engine,
            there.broker,
            tables=tables,
            batch=batch,
            lease=lease,
            poll=poll,
            park_after=park_after or None,
        )
        typer.echo(f"publishing to {there.name}", err=True)
        running.run()
        stats = running.stats
    typer.echo(f"{stats.published} published, {stats.failed} attempts failed, {stats.parked} rows parked", err=True)


@app.command("status")
def status(database: Url, schema: Schema = None, prefix: Prefix = PREFIX, as_json: Json = False) -> None:
    """Show how much waits, for how long, and how much is parked."""
    with _outbox(database, schema, prefix) as (outbox, connection):
        found = outbox.backlog(connection)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(
        f"{found.waiting} waiting, the oldest for {found.oldest:.0f} s; "
        f"{found.failing} of them failed before; {found.parked} parked"
    )


@app.command("parked")
def parked(
    database: Url,
    schema: Schema = None,
    prefix: Prefix = PREFIX,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 100,
    as_json: Json = False,
) -> None:
    """List the rows that could not be published, and why."""
    with _outbox(database, schema, prefix) as (outbox, connection):
        found = outbox.parked(connection, limit)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in found]))
        return
    table = Table("id", "topic", "key", "type", "attempts", "error", box=None, pad_edge=False)
    for row in found:
        table.add_row(row.id, row.topic, escape(row.key or "-"), escape(row.type), str(row.attempts), escape(row.error))
    console().print(table)


@app.command("requeue")
def requeue(
    database: Url,
    ids: Ids = None,
    schema: Schema = None,
    prefix: Prefix = PREFIX,
    everything: Annotated[bool, typer.Option("--all", help="Every parked row.")] = False,
) -> None:
    """Make relays try parked rows again. Later rows of their keys are published already."""
    if bool(ids) == everything:
        raise ConfigurationError("say which rows, by their ids, or --all")
    with _outbox(database, schema, prefix) as (outbox, connection):
        done = outbox.requeue(connection, ids or None)
    typer.echo(f"{done} requeued")


@app.command("discard")
def discard(
    database: Url,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Which ones.")],
    schema: Schema = None,
    prefix: Prefix = PREFIX,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
) -> None:
    """Drop parked rows for good."""
    if not yes:
        say_error(f"say --yes to drop {len(ids)} for good")
        raise typer.Exit(FAILED)
    with _outbox(database, schema, prefix) as (outbox, connection):
        done = outbox.discard(connection, ids)
    typer.echo(f"{done} dropped")
