"""`messaging capabilities`: what each broker can do, from what the adapters declare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from messaging.cli.capability_table import BEGIN, END, CapabilityTable, embed, embedded, installed_capabilities
from messaging.cli.console import console
from messaging.cli.errors import FAILED, say_error
from messaging.errors import ConfigurationError

_COLOURS = {"native": "green", "emulated": "yellow", "no": "red"}


def capabilities(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Exit 1 when FILE's table is out of date.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Bring the table in FILE up to date.")
    ] = None,
) -> None:
    """Show what each installed adapter can do: native, emulated or refused, and how."""
    if sum((markdown, check is not None, write is not None)) > 1:
        raise ConfigurationError("use one of --markdown, --check and --write")
    table = installed_capabilities()
    if check is not None or write is not None:
        if table.missing:
            raise ConfigurationError(f"the table needs every adapter: {table.missing[0]}")
        _compare((check or write or Path()), table.markdown(), write is not None)
        return
    if markdown:
        typer.echo(table.markdown())
    else:
        _show(table)
    for reason in table.missing:
        say_error(reason)


def _compare(path: Path, table: str, write: bool) -> None:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    there = embedded(text)
    if there is None:
        raise ConfigurationError(f"{path} has no lines {BEGIN} and {END} for the table to stand between")
    if there == table:
        typer.echo(f"{path}: the capability table is up to date")
    elif write:
        path.write_text(embed(text, table), "utf-8")
        typer.echo(f"{path}: the capability table was brought up to date")
    else:
        say_error(f"{path}: the capability table is out of date: messaging capabilities --write {path}")
        raise typer.Exit(FAILED)


def _show(table: CapabilityTable) -> None:
    shown = Table("", *map(escape, table.labels), show_lines=True)
    for name, *cells in table.rows():
        shown.add_row(name, *map(_coloured, cells))
    console().print(shown)


def _coloured(cell: str) -> str:
    word, colon, how = cell.partition(":")
    if word not in _COLOURS:
        return escape(cell)
    return f"[{_COLOURS[word]}]{word}[/]{colon}{escape(how)}"
