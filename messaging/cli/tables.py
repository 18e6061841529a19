"""`messaging tables`: the tables of inbox, outbox and event store."""

from __future__ import annotations

import typer

from messaging.cli.database import PREFIX, Prefix, Schema, Url, opened

app = typer.Typer(no_args_is_help=True, help="The tables of inbox, outbox and event store.")


@app.callback()
def _tables() -> None:
    pass


@app.command("create")
def create(database: Url, schema: Schema = None, prefix: Prefix = PREFIX) -> None:
    """Create the tables that are missing. Those that are there stay as they are."""
    with opened(database, schema, prefix) as (engine, tables):
        from messaging_sql import create_tables

        create_tables(engine, tables)
        for table in tables.metadata.sorted_tables:
            typer.echo(table.fullname)
