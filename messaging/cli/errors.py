"""What a failed command says and how it ends: one line on stderr, and an exit status."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from messaging.errors import ConfigurationError, MessagingError

FAILED = 1
USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def say_error(text: str) -> None:
    """One line on stderr: line breaks that a broker put in its error would look like several."""
    typer.echo(f"messaging: {' '.join(text.split())}", err=True)


def exit_status(error: MessagingError) -> int:
    return USAGE if isinstance(error, ConfigurationError) else FAILED


class ReportingGroup(TyperGroup):
    """Turns the errors of every command below it into a line and a status; any other exception is a bug and shows."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MessagingError as error:
            say_error(str(error))
            raise typer.Exit(exit_status(error)) from error
        except KeyboardInterrupt:
            say_error("interrupted")
            raise typer.Exit(INTERRUPTED) from None
