"""`messaging dlq`: what was given up, on any broker: look at it, move it back, drop it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from messaging.broker import Broker
from messaging.cli.console import console
from messaging.cli.errors import FAILED, say_error
from messaging.cli.topology_input import connected
from messaging.config import load
from messaging.dead_letter_queue import ALL, Choice, DeadLetter, DeadLetterQueue, Redriven
from messaging.errors import ConfigurationError, DestinationNotFound, MessagingError, TopologyError
from messaging.topology import Destination, Queue, Source, Topic, Topology
from messaging.topology_file import read_topology

app = typer.Typer(no_args_is_help=True, help="Look at dead letters, move them back, or drop them.")

Target = Annotated[str | None, typer.Option("--broker", help="A URL or profile. Without it: as `connect` finds it.")]
File = Annotated[Path | None, typer.Option("--file", help="The configuration file. Without it: as `connect` finds it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue, or the topic (then with --group).")]
Group = Annotated[str | None, typer.Option("--group", help="The subscription of the topic.")]
Ordered = Annotated[bool, typer.Option("--ordered", help="It is ordered. Not needed when it is in the file.")]
Error = Annotated[str, typer.Option("--error", help="Only where this regular expression is in the error or reason.")]
Older = Annotated[str | None, typer.Option("--older-than", help="Only dead for longer: 90s, 15m, 2h, 3d.")]
Newer = Annotated[str | None, typer.Option("--newer-than", help="Only dead for less.")]
Header = Annotated[list[str] | None, typer.Option("--header", help="Only with this header: NAME=VALUE. Repeatable.")]
Id = Annotated[list[str] | None, typer.Option("--id", help="Only the message with this id. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]

_COUNTED = 1000
"""Dead letters that are looked at to count them, at most."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command("list")
def list_(broker: Target = None, file: File = None, as_json: Json = False) -> None:
    """List the dead-letter queues of the configured topology with how many are in each."""
    with _connected(broker, file) as (connected, topology):
        sources = [source for source in topology.sources if source.dead_letter is not None]
        if not sources:
            raise ConfigurationError(
                "no [topology] with a dead-letter queue is configured: name one, `messaging dlq peek NAME`"
            )
        rows = [(str(source), source.dead_letter, _depth(connected, source)) for source in sources]
    if as_json:
        typer.echo(json.dumps([{"source": s, "name": q.name, "depth": d} for s, q, d in rows if q is not None]))
        return
    table = Table("source", "dead-letter queue", "messages", box=None, pad_edge=False)
    for source, queue, depth in rows:
        table.add_row(escape(source), escape(queue.name if queue else "-"), "missing" if depth is None else str(depth))
    console().print(table)


@app.command("peek")
def peek(
    name: Name,
    group: Group = None,
    broker: Target = None,
    file: File = None,
    ordered: Ordered = False,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 20,
    error: Error = "",
    older_than: Older = None,
    newer_than: Newer = None,
    header: Header = None,
    id: Id = None,
    as_json: Json = False,
) -> None:
    """Show dead letters. They stay where they are; for a moment nobody else gets them."""
    choice = _choice(error, older_than, newer_than, header, id)
    with _dead_letters(broker, file, name, group, ordered) as letters:
        depth = letters.depth()  # before: what was looked at takes a moment to be counted again
        found = letters.peek(limit, choice)
    if as_json:
        typer.echo(json.dumps([_as_json(letter) for letter in found]))
        return
    out = console()
    for letter in found:
        out.print(_shown(letter))
        out.print()
    out.print(f"{len(found)} shown of {max(depth, len(found))} in {escape(letters.name)}", soft_wrap=True)


@app.command("redrive")
def redrive(
    name: Name,
    group: Group = None,
    broker: Target = None,
    file: File = None,
    ordered: Ordered = False,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.")] = None,
    rate: Annotated[float | None, typer.Option(help="Messages a second at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    ledger: Annotated[
        Path | None, typer.Option(help="A file that remembers what was moved: the same command goes on after a crash.")
    ] = None,
    error: Error = "",
    older_than: Older = None,
    newer_than: Newer = None,
    header: Header = None,
    id: Id = None,
    as_json: Json = False,
) -> None:
    """Move dead letters back to the queue or subscription they came from, with the same id, and to no other group.

    Exit status 1 when one could not be moved; it stays where it is.
    """
    choice = _choice(error, older_than, newer_than, header, id)
    so_far = Redriven()

    def on_progress(result: Redriven) -> None:
        nonlocal so_far
        so_far = result
        show(result)

    with (
        _dead_letters(broker, file, name, group, ordered) as letters,
        _progress(letters, limit, as_json) as show,
    ):
        try:
            result = letters.redrive(
                choice, limit=limit, rate=rate, dry_run=dry_run, ledger=ledger, on_progress=on_progress
            )
        except BaseException:
            if so_far.moved and not dry_run:
                say_error(f"{so_far.moved} moved from {letters.name} to {letters.source} before this ended it:")
            raise
    _report(result, letters, dry_run, as_json)
    if result.failed:
        raise typer.Exit(FAILED)


@app.command("purge")
def purge(
    name: Name,
    group: Group = None,
    broker: Target = None,
    file: File = None,
    ordered: Ordered = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it only their number is told.")] = False,
    error: Error = "",
    older_than: Older = None,
    newer_than: Newer = None,
    header: Header = None,
    id: Id = None,
) -> None:
    """Drop dead letters for good."""
    choice = _choice(error, older_than, newer_than, header, id)
    with _dead_letters(broker, file, name, group, ordered) as letters:
        if not yes:
            depth = letters.depth()
            if choice == ALL:
                say_error(f"{depth} in {letters.name}: say --yes to drop all of them for good")
            else:
                chosen = len(letters.peek(_COUNTED, choice))
                more = " or more" if chosen == _COUNTED else ""
                say_error(f"{chosen}{more} of {depth} in {letters.name}: say --yes to drop those for good")
            raise typer.Exit(FAILED)
        dropped = letters.purge(choice)
    console().print(f"{dropped} dropped from {escape(letters.name)}", soft_wrap=True)


@contextmanager
def _connected(target: str | None, file: Path | None) -> Iterator[tuple[Broker, Topology]]:
    """A broker on which nothing is declared, so that nothing is made by looking, and what the file declares."""
    settings = load(file)
    with connected(settings, target, create=False) as there:
        yield there.broker, read_topology(settings.get("topology", {}))


@contextmanager
def _dead_letters(
    target: str | None, file: Path | None, name: str, group: str | None, ordered: bool
) -> Iterator[DeadLetterQueue]:
    with _connected(target, file) as (broker, topology):
        unknown = Queue(name, ordered=ordered) if group is None else Topic(name, group, ordered=ordered)
        destination: Destination = topology.get(name) or unknown
        letters = broker.dead_letter_queue(destination, group)
        try:
            yield letters
        except TopologyError as error:  # advice for who declares is none for who looks
            if destination is not unknown or _answers(letters):
                raise
            ways = [] if group else ["--group GROUP when it is a topic"]
            ways += [] if ordered else ["--ordered when it is ordered"]
            ways.append("--file with the one that declares it")
            kind = DestinationNotFound if isinstance(error, DestinationNotFound) else TopologyError
            raise kind(f"{error}. No file here declares {name!r}: say {', or '.join(ways)}") from error


def _answers(letters: DeadLetterQueue) -> bool:
    try:
        letters.depth()
    except MessagingError:
        return False
    return True


def _depth(broker: Broker, source: Source) -> int | None:
    try:
        return broker.dead_letter_queue(source.destination, source.group).depth()
    except DestinationNotFound:
        return None


def _choice(
    error: str, older_than: str | None, newer_than: str | None, headers: list[str] | None, ids: list[str] | None
) -> Choice:
    wanted: dict[str, str] = {}
    for text in headers or []:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigurationError(f"--header {text!r}: write NAME=VALUE")
        wanted[name] = value
    return Choice(error, _age(older_than, "--older-than"), _age(newer_than, "--newer-than"), wanted, tuple(ids or ()))


def _age(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise ConfigurationError(f"{option} {text!r}: write a number with s, m, h or d, such as 15m")
    return float(match[1]) * _UNITS[match[2] or "s"]


@contextmanager
def _progress(letters: DeadLetterQueue, limit: int | None, quiet: bool) -> Iterator[Any]:
    out = Console(stderr=True)
    if quiet or not out.is_terminal:
        yield lambda _so_far: None
        return
    depth = letters.depth()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("redriven", total=depth if limit is None else min(limit, depth))
        yield lambda so_far: bar.update(task, completed=so_far.moved + so_far.already)


def _report(result: Redriven, letters: DeadLetterQueue, dry_run: bool, as_json: bool) -> None:
    if as_json:
        told = {name: getattr(result, name) for name in ("moved", "already", "passed_over", "later", "unseen")}
        failed = [{"id": id, "error": str(error)} for id, error in result.failed]
        typer.echo(json.dumps({**told, "failed": failed, "dry_run": dry_run}))
        return
    did = "would be moved" if dry_run else "moved"
    lines = [f"{result.moved} {did} from {letters.name} to {letters.source}"]
    if result.already:
        lines.append(f"{result.already} had been moved by an earlier run, and were only taken out")
    if result.passed_over:
        lines.append(f"{result.passed_over} not chosen")
    if result.later:
        lines.append(f"{result.later} given up since this began, or by a clock that is ahead: left for another run")
    if result.unseen:
        lines.append(f"{result.unseen} not looked at: run it again")
    out = console()
    for line in lines:
        out.print(escape(line), soft_wrap=True)
    for id, error in result.failed:
        say_error(f"{id} stays in {letters.name}: {error}")


def _shown(letter: DeadLetter) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("id", _harmless(letter.id))
    for label, value in (
        ("key", letter.key),
        ("type", letter.type),
        ("source", letter.source),
        ("reason", letter.reason),
        ("error", letter.error),
        ("attempts", letter.attempts),
        ("published", _when(letter.published)),
        ("failed first", _when(letter.first_time)),
        ("given up", _when(letter.time)),
    ):
        if value not in (None, ""):
            table.add_row(label, _harmless(str(value)))
    for name, value in letter.headers.items():
        table.add_row("header", _harmless(f"{name}: {value}"))
    text = letter.body.decode("utf-8", "backslashreplace")
    table.add_row("body", _harmless(text if len(text) <= 500 else f"{text[:500]} ... ({len(letter.body)} bytes)"))
    return table


def _harmless(text: str) -> str:
    """What a message holds may be meant for a terminal: only its characters are shown, never obeyed."""
    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return escape("".join(shown))


def _when(seconds: float | None) -> str:
    if not seconds:
        return ""
    try:
        moment = datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
    return f"{moment} ({max(time.time() - seconds, 0):.0f} s ago)"


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    return {**asdict(letter), "body": letter.body.decode("utf-8", "backslashreplace"), "headers": dict(letter.headers)}
