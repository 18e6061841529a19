"""Where a topology command gets its topology and its broker from."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from messaging import adapters
from messaging.broker import Broker
from messaging.config import CONFIG_FILE, Target, load, redact, resolve
from messaging.driver import Driver
from messaging.errors import ConfigurationError, MessagingError
from messaging.topology import Topology
from messaging.topology_file import read_topology


@dataclass(frozen=True)
class Input:
    """What FILE says. name: for people. settings: the configuration file, for its profiles."""

    name: str
    topology: Topology
    settings: Mapping[str, Any]


def read(file: str | None) -> Input:
    """FILE is a configuration file, `module:attribute` or `file.py:attribute`; None: as `connect` finds it.

    Raises ConfigurationError when it is missing, broken, or declares nothing.
    """
    if file is not None and ":" in file and not Path(file).is_file():
        found = Input(file, _from_python(file), load())
        if not len(found.topology):
            raise ConfigurationError(f"{file} is an empty topology: give it a Queue or a Topic")
        return found
    if file is not None and file.endswith(".py"):
        raise ConfigurationError(f"{file}: say which value in it is the topology, as in {file}:topology")
    settings = load(file)
    path = Path(file or os.environ.get("MESSAGING_CONFIG") or CONFIG_FILE)
    topology = read_topology(settings.get("topology", {}))
    if not len(topology):
        what = "declares no queue and no topic" if path.is_file() else "is not in this directory"
        raise ConfigurationError(
            f"{path} {what}: add [topology.queues.jobs] to it, or write one with: messaging new retry-topology"
        )
    return Input(str(path), topology, settings)


def _from_python(file: str) -> Topology:
    where, _, attribute = file.rpartition(":")
    module = _module_of_file(Path(where)) if where.endswith(".py") else _module(where)
    value: Any = module
    for name in attribute.split("."):
        if not hasattr(value, name):
            raise ConfigurationError(f"{where} has no {attribute!r}: name a Topology, as in {where}:topology")
        value = getattr(value, name)
    try:
        return Topology.of(value)
    except (MessagingError, TypeError) as error:
        raise ConfigurationError(f"{file} is not a topology: {error}") from error


def _module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return _imported(name, lambda: importlib.import_module(name))


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"{path} does not exist")

    def run() -> ModuleType:
        # A name of its own, so that a file called json.py is nobody else's json.
        spec = importlib.util.spec_from_file_location(f"messaging_topology_of_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module  # dataclasses look for it there
        spec.loader.exec_module(module)
        return module

    return _imported(str(path), run)


def _imported(name: str, run: Any) -> ModuleType:
    try:
        module: ModuleType = run()
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise ConfigurationError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    return module


@dataclass(frozen=True)
class Reached:
    """A broker with nothing declared through it. name: for people."""

    name: str
    driver: Driver
    broker: Broker


@contextmanager
def connected(settings: Mapping[str, Any], name: str | None, *, create: bool = True) -> Iterator[Reached]:
    """The broker that is meant by `name` (`--broker`), as `settings` have it. Raises what `connect` raises."""
    driver = adapters.create(resolve(name, settings, {}))
    try:
        driver.open()
    except BaseException:
        driver.close()
        raise
    with Broker(driver, create=create) as broker:
        yield Reached(driver.name, driver, broker)


@contextmanager
def assumed(target: Target, version: str | None) -> Iterator[Reached]:
    """One that plans and exports without a connection, for that version or the newest."""
    driver = adapters.create(target)
    words = driver.assume(version)
    with Broker(driver) as broker:
        yield Reached(words, driver, broker)


def exporter(given: Input, name: str | None, format: str) -> Target:
    """Which adapter writes `format`: that of `--broker` or of the environment, else the only one that does.

    Raises ConfigurationError when there is none, or `--broker` names one that does not write it.
    """
    formats = _formats()
    known = sorted({each for several in formats.values() for each in several})
    if format not in known:
        raise ConfigurationError(f"there is no export as {format!r}; known: {', '.join(known)}")
    target = resolve(name, given.settings, {})
    if format in formats.get(target.scheme, ()):
        return target
    if name is not None:
        own = ", ".join(formats.get(target.scheme, ())) or "nothing"
        raise ConfigurationError(
            f"an export as {format!r} does not fit {redact(name)}: the {target.scheme} adapter exports {own}"
        )
    able = [adapter for adapter, several in formats.items() if format in several]
    if len(able) > 1:
        choice = " or ".join(f"--broker {adapter}://" for adapter in able)
        raise ConfigurationError(f"several adapters export as {format!r}: say which, with {choice}")
    return Target(able[0])


def _formats() -> dict[str, tuple[str, ...]]:
    """What each installed adapter exports; one whose client is missing exports nothing."""
    found = {}
    for name in adapters.names():
        try:
            found[name] = tuple(adapters.load(name).export_formats)
        except Exception:  # a third party's adapter that is broken must not hide the others
            continue
    return found
