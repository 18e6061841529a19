"""`messaging topology`: what a topology is made of, and whether a broker holds it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

import typer
from rich.markup import escape

from messaging.cli.console import console
from messaging.cli.diagram import diagram_of, diagram_tree, dot, mermaid
from messaging.cli.diagram_svg import svg
from messaging.cli.errors import FAILED, say_error
from messaging.cli.topology_input import assumed, connected, exporter, read
from messaging.cli.topology_report import (
    diff_lines,
    findings_json,
    findings_text,
    leftovers_text,
    plan_json,
    plan_tree,
    summary,
)
from messaging.config import resolve
from messaging.driver import Driver
from messaging.errors import ConfigurationError, DestinationNotFound, MessagingError, TopologyError
from messaging.plan import Part, State
from messaging.topology import Source, Topic, Topology

app = typer.Typer(no_args_is_help=True, help="Plan, apply, check, export and draw queues and topics.")

File = Annotated[
    str | None,
    typer.Argument(
        metavar="[FILE]",
        help="A messaging.toml, or module:attribute or file.py:attribute. Without it: as connect finds it.",
    ),
]
Where = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="A URL or profile. Without it: as connect finds it.")
]
Delays = Annotated[
    list[float] | None,
    typer.Option("--delay", metavar="SECONDS", help="Also what a retry after so long makes. May be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[
    str | None,
    typer.Option("--broker-version", metavar="VERSION", help="Ask no broker: plan for this version, as in 3.13."),
]


_MADE = {"missing": "created", "there": "was there", "different": "changed", "unknown": "declared"}
"""What apply did, by what was found before."""

DRAWINGS = {"mermaid": mermaid, "dot": dot, "svg": svg}


@app.command()
def plan(
    file: File = None,
    broker: Where = None,
    delay: Delays = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no broker: plan for the newest version.")] = False,
    broker_version: Version = None,
    json: Json = False,
) -> None:
    """Show what apply would make, why each part is there and why it is safe. Makes nothing."""
    given = read(file)
    if offline or broker_version is not None:
        reached = assumed(resolve(broker, given.settings, {}), broker_version)
    else:
        reached = connected(given.settings, broker)
    with reached as there:
        name, parts = there.name, there.broker.plan(given.topology, delays=delay or ())
    if json:
        typer.echo(plan_json(name, parts))
    else:
        console().print(plan_tree(f"{given.name} on {name}", parts), soft_wrap=False)  # folded, not cut off


@app.command()
def apply(file: File = None, broker: Where = None) -> None:
    """Make what is missing. What is there as declared stays as it is; what differs is refused."""
    given = read(file)
    with connected(given.settings, broker) as there:
        before = {finding.part: finding.state for finding in there.broker.inspect(given.topology)}
        try:
            there.broker.declare(given.topology)
        except MessagingError as error:
            # One thing is made after the other: what was made before this one is there now.
            with suppress(MessagingError):  # why it was refused is what counts
                for finding in there.broker.inspect(given.topology):
                    if finding.state == "there" and before[finding.part] != "there":
                        typer.echo(_made(finding.part, before))
            if not isinstance(error, TopologyError):
                raise
            raise TopologyError(f"{error}. messaging topology check tells every difference") from error
        after = there.broker.inspect(given.topology)
    for finding in after:
        if not finding.drifted:
            typer.echo(_made(finding.part, before))
    if left := [finding for finding in after if finding.drifted]:
        for line in findings_text(left):
            console().print(line)
        raise typer.Exit(FAILED)


@app.command()
def check(file: File = None, broker: Where = None, delay: Delays = None, json: Json = False) -> None:
    """Compare the broker with what is declared; exit 1 when something is missing or differs. Makes nothing."""
    given = read(file)
    with connected(given.settings, broker) as there:
        name, findings = there.name, there.broker.inspect(given.topology, delays=delay or ())
        left = there.broker.leftovers(given.topology, delays=delay or None)
    drifted = [finding for finding in findings if finding.drifted]
    if json:
        typer.echo(findings_json(name, findings, left))
    else:
        out = console()
        for line in (*findings_text(findings), *leftovers_text(left)):
            out.print(line)
        out.print(escape(f"{name}: {summary(findings)}"))
    if drifted:
        raise typer.Exit(FAILED)


@app.command()
def diff(file: File = None, broker: Where = None, delay: Delays = None) -> None:
    """Print what differs between the broker and what is declared, as a diff; exit 1 when something does."""
    given = read(file)
    with connected(given.settings, broker) as there:
        name, findings = there.name, there.broker.inspect(given.topology, delays=delay or ())
        left = there.broker.leftovers(given.topology, delays=delay or None)
    for line in diff_lines(name, given.name, findings, left):
        typer.echo(line)
    if any(finding.drifted for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def delete(
    file: File = None,
    broker: Where = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete, with every message in it.")] = False,
) -> None:
    """Delete the topology with its dead-letter and retry queues. Without --yes: only list it."""
    given = read(file)
    with connected(given.settings, broker) as there:
        for name, messages in _contents(there.driver, given.topology):
            typer.echo(f"{name}: {_counted(messages)}")
        for destination in given.topology:
            if isinstance(destination, Topic):
                typer.echo(f"topic {destination.name!r}: for all its groups, also those that are not declared here")
        if not yes:
            for part in there.broker.leftovers(given.topology, delays=()):  # after no delay at all: every wait queue
                typer.echo(f"{part}: {_counted(part.settings['messages'])}")
            say_error(
                "nothing was deleted: --yes deletes all of this, with what is being handled or waits for a delay "
                "elsewhere, which is not counted"
            )
            raise typer.Exit(FAILED)
        there.broker.delete(given.topology)
    typer.echo(f"deleted from {there.name}")


@app.command()
def export(
    format: Annotated[str, typer.Option("--format", help="rabbitmq, terraform, cloudformation or kafka.")],
    file: File = None,
    broker: Annotated[
        str | None, typer.Option("--broker", metavar="URL", help="Whose options to use; it is not connected to.")
    ] = None,
    broker_version: Annotated[
        str | None, typer.Option("--broker-version", metavar="VERSION", help="For this version, else the newest.")
    ] = None,
    delay: Delays = None,
) -> None:
    """Print what makes the topology without this library. Asks no broker."""
    given = read(file)
    with assumed(exporter(given, broker, format), broker_version) as there:
        text = there.driver.export(there.broker.plan(given.topology, delays=delay or ()), format)
        say_error(f"as for {there.name}")
    typer.echo(text, nl=False)


@app.command()
def draw(
    file: File = None,
    format: Annotated[str, typer.Option("--format", help="tree, mermaid, dot or svg.")] = "tree",
) -> None:
    """Draw who gets what, and where rejected messages go. Asks no broker."""
    given = read(file)
    if format == "tree":
        console().print(diagram_tree(given.name, given.topology), soft_wrap=False)
    elif format in DRAWINGS:
        typer.echo(DRAWINGS[format](diagram_of(given.topology)), nl=False)
    else:
        raise ConfigurationError(f"there is no drawing as {format!r}; known: tree, {', '.join(DRAWINGS)}")


def _made(part: Part, before: Mapping[Part, State]) -> str:
    return f"{_MADE[before[part]]:<9} {part.kind} {part.name}"


def _counted(messages: int | None) -> str:
    if messages is None:
        return "not there"
    return "1 message" if messages == 1 else f"{messages} messages"


def _contents(driver: Driver, topology: Topology) -> list[tuple[str, int | None]]:
    """Each source and dead-letter queue, with how many messages wait in it; None: it is not there."""
    found: list[tuple[str, int | None]] = []
    for source in topology.sources:
        found.append((str(source), _depth(driver, source)))
        if source.dead_letter is not None:
            found.append((f"queue {source.dead_letter.name!r}", _depth(driver, Source(source.dead_letter))))
    found += [(f"topic {d.name!r}, without subscriptions", 0) for d in topology if not _sources(topology, d.name)]
    return found


def _sources(topology: Topology, name: str) -> bool:
    return any(source.destination.name == name for source in topology.sources)


def _depth(driver: Driver, source: Source) -> int | None:
    try:
        return driver.depth(source)
    except DestinationNotFound:
        return None
