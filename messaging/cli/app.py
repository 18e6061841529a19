"""All commands together."""

from __future__ import annotations

from typing import Annotated

import typer

import messaging
from messaging.cli import adapters, brokers, capabilities, config, contract, demo, dlq, new, outbox, tables, topology
from messaging.cli.errors import ReportingGroup

app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One producer/consumer interface over Kafka, RabbitMQ, SQS and memory.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"messaging (anybroker) {messaging.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.add_typer(brokers.app, name="brokers")
app.add_typer(dlq.app, name="dlq")
app.add_typer(outbox.app, name="outbox")
app.add_typer(tables.app, name="tables")
app.add_typer(topology.app, name="topology")
app.add_typer(new.app, name="new")
app.command("contract")(contract.contract)
app.command("adapters")(adapters.adapters)
app.command("capabilities")(capabilities.capabilities)
app.command("config")(config.config)
