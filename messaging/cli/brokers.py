"""`messaging brokers`: real brokers in containers, for development."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from messaging.cli.compose import SERVICES, Service, compose_state, run_compose
from messaging.cli.console import console
from messaging.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="Run RabbitMQ, Kafka and SQS emulators in containers.")

_NAMES = ", ".join(service.name for service in SERVICES)


@app.command()
def up(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help=f"Which ones: {_NAMES}. Without: all.")
    ] = None,
) -> None:
    """Start the brokers, wait until they are ready, and print their URLs."""
    chosen = _chosen(names)
    run_compose("up", "--detach", "--wait", *(service.name for service in chosen))
    _print_urls(chosen)


@app.command()
def down() -> None:
    """Stop and remove the brokers, with everything in them."""
    run_compose("down", "--volumes")


@app.command()
def status() -> None:
    """Show which brokers run, and their URLs."""
    state = compose_state()
    table = Table("broker", "state", "URL", box=None, pad_edge=False)
    for service in SERVICES:
        table.add_row(service.name, state.get(service.name, "not running"), service.address)
    console().print(table)


def _chosen(names: Sequence[str] | None) -> list[Service]:
    known = {service.name: service for service in SERVICES}
    for name in names or ():
        if name not in known:
            raise ConfigurationError(f"no broker {name!r}; there are {_NAMES}")
    return [service for service in SERVICES if not names or service.name in names]


def _print_urls(services: Sequence[Service]) -> None:
    typer.echo()
    for service in services:
        typer.echo(f"{service.about}: {service.address}")
    if able := [service for service in services if service.topics]:
        typer.echo(f"\nTry it: messaging demo --broker '{able[0].address}'")
