"""`messaging new`: files to start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from messaging.config import CONFIG_FILE
from messaging.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="Write a file to start from.")


@app.callback()
def _new() -> None:
    pass  # a group of one command is a group too


@app.command("retry-topology")
def retry_topology(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path(CONFIG_FILE),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a messaging.toml with comments: a topic with three groups, a queue, and their dead letters."""
    target = path / CONFIG_FILE if path.is_dir() else path
    text = resources.files("messaging.cli").joinpath("retry_topology.toml").read_text("utf-8")
    try:
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{target} is there already: --force writes over it") from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {target}; next: messaging topology plan{'' if str(target) == CONFIG_FILE else f' {target}'}")
