"""Adapters are found by entry point, so `connect("nats://...")` works once someone installs one for it."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points

from messaging.config import Target, build_options
from messaging.driver import Driver
from messaging.errors import ConfigurationError

GROUP = "messaging.adapters"


def names() -> list[str]:
    """The URL schemes of the installed adapters."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load(scheme: str) -> type[Driver]:
    """The driver class for a URL scheme. Raises ConfigurationError when there is none, or its client is missing."""
    found = [entry for entry in entry_points(group=GROUP) if entry.name == scheme]
    if not found:
        near = difflib.get_close_matches(scheme, names(), 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"installed: {', '.join(names())}"
        raise ConfigurationError(f"no adapter for {scheme + '://'!r}; {hint}")
    try:
        driver: type[Driver] = found[0].load()
    except ImportError as error:
        raise ConfigurationError(
            f"the {scheme} adapter needs a client that is not installed ({error.name}): "
            f'python -m pip install "anybroker[{scheme}]"'
        ) from error
    return driver


def create(target: Target) -> Driver:
    """The driver for `target`, not yet open. Raises ConfigurationError for a wrong option."""
    driver = load(target.scheme)
    return driver(build_options(driver.Options, target.options, driver.name))
