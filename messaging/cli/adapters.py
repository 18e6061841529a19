"""`messaging adapters`: which brokers can be reached from here."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

import messaging.adapters
from messaging.cli.console import console
from messaging.errors import ConfigurationError


def adapters() -> None:
    """List the installed adapters, and what is missing to use one."""
    table = Table("adapter", "URL", "state", box=None, pad_edge=False)
    for name in messaging.adapters.names():
        try:
            messaging.adapters.load(name)
        except ConfigurationError as error:
            state = str(error)
        except Exception as error:  # a third party's adapter that is broken must not hide the others
            state = f"broken: {type(error).__name__}: {error}"
        else:
            state = "ready"
        table.add_row(name, f"{name}://", escape(state))
    console().print(table)
