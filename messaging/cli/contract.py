"""`messaging contract`: the contract suite against a broker of one's own.

The suite stands above this package, which does not import it: it is run as `python -m messaging_contract` would be.
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from messaging.config import load
from messaging.errors import ConfigurationError

_SUITE = "messaging_contract"


def contract(
    broker: Annotated[
        str | None,
        typer.Option("--broker", "--profile", metavar="URL", help="A URL or profile. Without it: as connect finds it."),
    ] = None,
    safe: Annotated[
        bool,
        typer.Option(
            "--safe",
            help="For a cluster that others use: break nothing, send little, leave nothing behind, and tell what its "
            "settings do not uphold.",
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="With --safe: such a setting is a failure too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --safe: only tell what would be made.")] = False,
    delay: Annotated[
        list[float] | None,
        typer.Option("--delay", metavar="SECONDS", help="With --safe: look at what a retry after so long needs."),
    ] = None,
    clauses: Annotated[str | None, typer.Option("-k", metavar="EXPRESSION", help="Only clauses that match.")] = None,
    report: Annotated[
        list[str] | None,
        typer.Option("--report", metavar="FILE", help=".md, .json, .html, or .xml for JUnit. May be repeated."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            help="For the clauses about the patterns on SQL. Without it a temporary SQLite.",
        ),
    ] = None,
    first: Annotated[bool, typer.Option("--exitfirst", "-x", help="Stop at the first failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line a clause.")] = False,
) -> None:
    """Prove the contract on a broker of yours. Exit status 1 when a clause failed."""
    missing = next((name for name in (_SUITE, "pytest") if find_spec(name) is None), None)
    if missing is not None:
        raise ConfigurationError(
            f"the contract suite needs {missing}, which is not installed: "
            f'python -m pip install "anybroker[contract]", and the extra of the broker\'s client'
        )
    arguments = ["--broker", broker or _default(), "--require"]
    flags = {"--safe": safe, "--strict": strict, "--dry-run": dry_run, "-x": first, "-v": verbose}
    arguments += [flag for flag, given in flags.items() if given]
    arguments += [word for seconds in delay or () for word in ("--delay", str(seconds))]
    arguments += [word for file in report or () for word in ("--report", file)]
    arguments += ["-k", clauses] if clauses else []
    arguments += ["--database", database] if database else []
    sys.argv[1:] = arguments
    runpy.run_module(_SUITE, run_name="__main__", alter_sys=True)


def _default() -> str:
    """As `connect` finds it, except that memory has to be asked for: it would prove nothing about a cluster."""
    named = os.environ.get("MESSAGING_URL") or os.environ.get("MESSAGING_PROFILE") or load().get("default")
    if not named:
        raise ConfigurationError("which broker? Say --profile NAME of messaging.toml, or --broker URL")
    return str(named)
