"""`messaging config`: what `connect` would use, and where each part of it comes from. Secrets are not shown."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import messaging.adapters
from messaging.cli.console import console
from messaging.config import CONFIG_FILE, build_options, load, resolve
from messaging.topology import Queue, Topology
from messaging.topology_file import read_topology

_SECRET = re.compile(r"pass(word|phrase)|secret|token|private|credential", re.IGNORECASE)
HIDDEN = "***"


def config(
    profile: Annotated[
        str | None, typer.Argument(help="A profile or URL. Without it: what the environment says.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="The configuration file. Without it: as `connect` finds it.")
    ] = None,
) -> None:
    """Show what would be used: broker, options and topology. Nothing is connected, and secrets are not shown."""
    settings = load(file)
    target = resolve(profile, settings, {})
    driver = messaging.adapters.load(target.scheme)
    options = build_options(driver.Options, target.options, driver.name)
    out = console()
    about = Table.grid(padding=(0, 2))
    about.add_row("file", escape(_file(file, settings)))
    about.add_row("chosen by", escape(_chosen_by(profile, settings)))
    about.add_row("adapter", driver.name)
    for line in _topology(read_topology(settings.get("topology", {}))):
        about.add_row("topology", escape(line))
    out.print(about)
    out.print()
    table = Table("option", "value", "from", box=None, pad_edge=False)
    for spec in fields(options):
        origin = "set" if spec.name in target.options else "default"
        table.add_row(spec.name, escape(shown(spec.name, getattr(options, spec.name))), origin)
    out.print(table)


def shown(name: str, value: Any) -> str:
    """The value as text, without what is secret in it."""
    if value is None:
        return "-"
    if _SECRET.search(name):
        return HIDDEN
    if name == "hosts":
        return ", ".join(host if port is None else f"{host}:{port}" for host, port in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={shown(str(key), inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, str):
        return re.sub(r"(://[^:/@]*):[^@]*@", rf"\1:{HIDDEN}@", value) or "-"
    return str(value)


def _file(named: Path | None, settings: dict[str, Any]) -> str:
    path = Path(named or os.environ.get("MESSAGING_CONFIG") or CONFIG_FILE)
    return str(path.absolute()) if settings or path.exists() else f"none ({CONFIG_FILE} is not in this directory)"


def _chosen_by(profile: str | None, settings: dict[str, Any]) -> str:
    if profile:
        return "argument (URL)" if "://" in profile else f"argument (profile {profile})"
    for variable in ("MESSAGING_URL", "MESSAGING_PROFILE"):
        value = os.environ.get(variable)
        if value:
            return variable if "://" in value else f"{variable} (profile {value})"
    if "default" in settings:
        return f"default of the file (profile {settings['default']})"
    return "nothing is configured: the embedded broker"


def _topology(topology: Topology) -> list[str]:
    lines = []
    for destination in topology:
        ordered = ", ordered" if destination.ordered else ""
        if isinstance(destination, Queue):
            lines.append(f"queue {destination.name}{ordered}")
        else:
            groups = ", ".join(f"{s.group} ({s.pattern})" for s in destination.subscriptions)
            lines.append(f"topic {destination.name}{ordered}: {groups or 'no groups'}")
    return lines
