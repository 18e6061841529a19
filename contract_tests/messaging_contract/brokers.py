"""From what the user asked for to harnesses: URLs, containers, the emulators and the memory broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from messaging import adapters
from messaging.capabilities import Support
from messaging.config import build_options, load, redact, resolve
from messaging.errors import BrokerUnavailable, ConfigurationError
from messaging_contract.clause import Kind
from messaging_contract.conditions import (
    Congestion,
    expiring_for,
    full_queue,
    impatience_for,
    narrow_for,
    place_for,
    small_buffer,
    special_for,
    throttling_for,
)
from messaging_contract.drift import drift_for
from messaging_contract.faults.links import ProxiedBroker, ProxyLink
from messaging_contract.faults.proxy import HOST
from messaging_contract.foreign import foreign_for
from messaging_contract.harness import Harness, Link, connect_to
from messaging_contract.membership import joined_for, remains_for

if TYPE_CHECKING:
    from messaging_contract.containers.base import BrokerContainer

REAL = ("rabbitmq", "kafka", "sqs")
"""The containers that are started when nothing was asked for."""

_PROXIED = {"rabbitmq": 5672, "sqs": 80}
"""Brokers that are reached at one address, so that a proxy carries all there is, and their ports."""


class Unavailable(Exception):
    """A broker that cannot be reached or started. The text says why."""


@dataclass(frozen=True)
class Candidate:
    """A broker that was asked for. `open` reaches or starts it; raises Unavailable."""

    name: str
    open: Callable[[], Harness]


@dataclass(frozen=True)
class Settings:
    """brokers: URLs, profiles or `module:function` that returns a Harness. containers: specs of the catalogue.

    require: a broker, or the database, that is not there is a failure. database: SQLAlchemy's URL. Both lists
    empty: the default brokers.
    """

    brokers: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    require: bool = False
    database: str | None = None

    @classmethod
    def of(
        cls,
        brokers: list[str],
        containers: str | None,
        require: bool,
        env: Mapping[str, str],
        database: str | None = None,
    ) -> Settings:
        """From the command line, with the environment's MESSAGING_CONTAINERS, MESSAGING_REQUIRE and MESSAGING_DATABASE
        as defaults.
        """
        names = "" if containers is None and brokers else containers or env.get("MESSAGING_CONTAINERS", "")
        specs = tuple(name.strip() for name in names.split(",") if name.strip())
        asked = containers is not None or bool(brokers)
        if not asked:
            specs = specs or REAL
            moto = find_spec("moto") and find_spec("boto3") and "sqs:moto" not in specs
            brokers = ["memory://", *(["sqs+moto://"] if moto else [])]
        required = require or env.get("MESSAGING_REQUIRE", "") not in ("", "0")
        return cls(tuple(brokers), specs, required, database or env.get("MESSAGING_DATABASE") or None)


def candidates(settings: Settings) -> list[Candidate]:
    """The brokers to test, in order. Raises ValueError when a container spec is unknown, or two have one name."""
    found = _found(settings)
    names = Counter(candidate.name for candidate in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{twice[0]} was asked for twice: one column of the report cannot tell them apart")
    return found


def _found(settings: Settings) -> list[Candidate]:
    found = [Candidate(_label(broker), partial(open_broker, broker)) for broker in settings.brokers]
    if settings.containers:
        try:
            from messaging_contract.containers import catalogue
        except ImportError as error:
            reason = f'{error}: python -m pip install "anybroker[contract]"'
            return found + [Candidate(spec, partial(_fail, reason)) for spec in settings.containers]
        for spec in settings.containers:
            found.append(Candidate(catalogue.find(spec).name, partial(_open_container, spec)))
    return found


def check_target(target: str) -> None:
    """Raises ConfigurationError for an unknown scheme, profile or option: once, instead of in every clause."""
    if target == "sqs+moto://" or _is_function(target):
        return
    try:
        found = resolve(target, load(), {})
        driver = adapters.load(found.scheme)
        build_options(driver.Options, found.options, driver.name)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, ImportError):  # a client that is not installed makes it "not run"
            raise


def open_broker(target: str) -> Harness:
    """A harness for a URL, a profile, or `module:function`. Raises Unavailable.

    A profile is read once, here: the harness is that of the URL it stands for.
    """
    if target == "sqs+moto://":
        return _moto_process()
    if _is_function(target):
        module, _, function = target.partition(":")
        try:
            make: Callable[[], Harness] = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"{target!r} is not a module and a function in it: {error}") from error
        return make()
    url, beside = url_of(target)
    if url.startswith("memory://"):
        return memory_harness()
    if beside:  # only this process can connect
        harness = Harness(_label(target), connect_to(url, **beside), quiet=0.5)
    else:
        harness = url_harness(url, _label(target))
    try:
        harness.broker.ping()
    except BrokerUnavailable as error:
        harness.close()
        raise Unavailable(str(error)) from error
    except ConfigurationError as error:
        if isinstance(error.__cause__, ImportError):
            raise Unavailable(str(error)) from error
        raise
    return harness


def url_of(target: str) -> tuple[str, dict[str, Any]]:
    """The URL that a URL or profile stands for, and the options that no URL can hold: tables and lists."""
    if "://" in target:
        return target, {}
    found = resolve(target, load(), {})
    options = dict(found.options)
    hosts, user, password, path = (options.pop(name, None) for name in ("hosts", "username", "password", "path"))
    userinfo = quote(user or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    query = {name: value for name, value in options.items() if isinstance(value, str | int | float)}
    url = f"{found.scheme}://"
    url += f"{userinfo}@" if userinfo else ""
    url += ",".join(_address(*host) for host in hosts or ())
    url += f"/{quote(path, safe='')}" if path else ""
    url += f"?{urlencode(query)}" if query else ""
    return url, {name: value for name, value in options.items() if name not in query}


def _address(host: str, port: int | None) -> str:
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def memory_harness() -> Harness:
    """One memory broker that every connection of the harness shares."""
    from messaging_memory import ManualClock, MemoryServer

    clock = ManualClock(running=True)
    connect = connect_to("memory://", server=MemoryServer(clock))
    harness = Harness("memory", connect, url="memory://", quiet=0.1, pace=0.25, advance=clock.advance)
    harness.in_memory = True
    harness.impatient, harness.narrow = impatience_for("memory://"), narrow_for("memory://")
    harness.congested = lambda: full_queue(connect_to("memory://"))
    return harness


def url_harness(url: str, name: str | None = None) -> Harness:
    """A running broker. Where one address carries everything it can be cut with a proxy.

    Not over TLS: the certificate is for the broker's name, and the proxy has another.
    """
    harness = Harness(name or _label(url), connect_to(url), url=url, remote=url, quiet=0.5, foreign=foreign_for(url))
    parts = urlsplit(url)
    encrypted = dict(parse_qsl(parts.query)).get("tls", "false").lower() in ("true", "yes", "on", "1")
    if parts.scheme == "sqs":
        harness.volume = 300
    harness.joined = joined_for(url)
    harness.impatient, harness.narrow, harness.place = impatience_for(url), narrow_for(url), place_for(url)
    harness.special, harness.expiring = special_for(url), expiring_for(url)
    harness.remains, harness.congested = remains_for(url), throttling_for(url)
    harness.drift = drift_for(url)
    if parts.scheme == "kafka":
        harness.attempts_kept = partial(_counted_by_kafka, harness)
    if parts.scheme in ("rabbitmq", "kafka", "sqs"):
        harness.at = partial(_at, url)
    if parts.scheme in ("rabbitmq", "kafka") and parts.hostname and "," not in parts.netloc:
        default = {"rabbitmq": 5671 if encrypted else 5672, "kafka": 9092}[parts.scheme]
        harness.several_hosts = _at(url, f"{HOST}:1,{parts.hostname}", parts.port or default)
    if parts.scheme == "rabbitmq":
        user = f"nobody:wrong@{parts.netloc.rpartition('@')[2]}"
        harness.wrong_credentials = urlunsplit(parts._replace(netloc=user))
    if parts.scheme in _PROXIED and parts.hostname and "," not in parts.netloc and not encrypted:
        harness.link = partial(_link, url, (parts.hostname, parts.port or _PROXIED[parts.scheme]))
    return harness


def _counted_by_kafka(harness: Harness, kind: Kind) -> bool:
    """Consumer groups have one position and no counts: their attempts are counted in the consumer (docs/kafka.md)."""
    return kind == "queue" and harness.capabilities.queues.support is Support.NATIVE


def _link(url: str, upstream: tuple[str, int]) -> Link:
    return ProxyLink(upstream, lambda port: _at(url, HOST, port))


def _at(url: str, host: str, port: int) -> str:
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{port}"))


def _open_container(spec: str) -> Harness:
    from messaging_contract.containers import catalogue, engine
    from messaging_contract.containers.errors import BrokerNotReady, ContainersUnavailable

    entry = catalogue.find(spec)
    try:
        engine.check()
        container = entry.container()
        broker = ProxiedBroker(container) if spec.startswith("kafka") else None
        container.start()
    except (ContainersUnavailable, BrokerNotReady) as error:
        raise Unavailable(str(error)) from error
    return _harness_of(spec, container, broker)


def offered(spec: str) -> Harness:
    """The harness of a container that is not started: its controls, for whoever wants to know which there are."""
    from messaging_contract.containers import catalogue

    container = catalogue.find(spec).container()
    return _harness_of(spec, container, ProxiedBroker(container) if spec.startswith("kafka") else None)


def _harness_of(spec: str, container: BrokerContainer, broker: ProxiedBroker | None) -> Harness:
    from messaging_contract.containers.rabbitmq import RabbitMQContainer

    harness = url_harness(broker.url if broker else container.url, container.name)
    harness.closing.append(container.stop)
    harness.pause, harness.unpause = container.pause, container.unpause
    if spec == "sqs:moto":  # two receives that wait at the same time both get messages of one group
        harness.exclusive = None
        harness.volume = 100  # each receive looks at every message
    if isinstance(container, RabbitMQContainer):
        harness.short_ack_timeout = container.short_ack_timeout
    if container.keeps_data:
        harness.restart, harness.kill = container.restart, container.kill
    if isinstance(container, RabbitMQContainer):
        alarm, clear = container.raise_memory_alarm, container.clear_memory_alarm
        harness.alarm, harness.clear_alarm = alarm, clear
        harness.congested = lambda: Congestion("blocked", harness.connect, alarm, clear)
    if broker is not None:
        harness.congested = lambda: small_buffer(broker.link())
        harness.link = broker.link
        harness.closing.append(broker.close)
    return harness


def _moto_process() -> Harness:
    from messaging_contract.moto_process import MotoProcess

    process = MotoProcess()
    try:
        process.start()
    except OSError as error:
        raise Unavailable(f"moto's server did not start: {error}") from error
    harness = url_harness(process.url, "sqs:moto-process")
    harness.volume = 60
    harness.exclusive = None
    harness.closing.append(process.stop)
    return harness


def _is_function(target: str) -> bool:
    return "://" not in target and ":" in target


def _fail(reason: str) -> Harness:
    raise Unavailable(reason)


def _label(target: str) -> str:
    if target.startswith("sqs+moto"):
        return "sqs:moto-process"
    if target.startswith("memory://"):
        return "memory"
    return redact(target).split("?")[0].rstrip("/")
