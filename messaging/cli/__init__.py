"""The `messaging` command. Needs the extra `cli` (typer and rich); without it says so in one sentence."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point. Exit status: 0, 1 when something failed, 2 for wrong usage or configuration, 130 for Ctrl-C."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        sys.stderr.write(
            f"messaging: the command line needs {error.name}, which is not installed: "
            f'python -m pip install "anybroker[cli]"\n'
        )
        raise SystemExit(2) from None
    try:
        from messaging.cli.app import app
    except KeyboardInterrupt:  # once a command runs, it ends itself
        sys.stderr.write("messaging: interrupted\n")
        raise SystemExit(130) from None
    app(prog_name="messaging")
