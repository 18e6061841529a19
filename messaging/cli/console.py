"""Where commands print."""

from __future__ import annotations

from rich.console import Console

_FILE_WIDTH = 200
"""Columns where stdout is not a terminal: what is piped or redirected should not wrap at 80."""


def console() -> Console:
    """For stdout as it is now, so that tests can capture it. Lines are never folded, tables on a terminal are."""
    found = Console(highlight=False, soft_wrap=True)
    return found if found.is_terminal else Console(highlight=False, soft_wrap=True, width=_FILE_WIDTH)
