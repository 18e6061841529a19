"""What can go wrong with the database, as errors of the one tree."""

from __future__ import annotations

from messaging.errors import ConfigurationError, Unavailable


class TablesMissing(ConfigurationError):
    """The tables of this package are not in the database. The text names the command that creates them."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, or the connection was lost. What was not committed did not happen."""
