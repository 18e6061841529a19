"""From a URL, a profile name or the environment to the options of an adapter.

A URL is `scheme://user:password@host:port,host:port/path?option=value`. A profile is a table in `messaging.toml`:

    default = "dev"

    [profiles.dev]
    url = "memory://"

    [profiles.prod]
    url = "rabbitmq://app:${RABBITMQ_PASSWORD}@rabbit.internal/"
    heartbeat = 30

`${NAME}` stands for an environment variable. As user or password of a URL it is taken literally, so it may hold any
character; elsewhere in a URL it is pasted as it is.

What is used, first found wins: the argument of `connect`, MESSAGING_URL, MESSAGING_PROFILE, `default`, `memory://`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, quote, unquote

from messaging.errors import ConfigurationError

T = TypeVar("T")

CONFIG_FILE = "messaging.toml"
_FROM_URL = ("hosts", "username", "password", "path")
_SECRET = re.compile(r"secret|password|token", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """Which adapter to use, and everything it was told."""

    scheme: str
    options: Mapping[str, Any] = field(default_factory=dict)


def load(path: str | Path | None = None) -> dict[str, Any]:
    """The configuration file as a dict: `path`, else MESSAGING_CONFIG, else `messaging.toml` here, else empty.

    Raises ConfigurationError when a file that was named is missing or is not TOML.
    """
    named = path or os.environ.get("MESSAGING_CONFIG")
    file = Path(named or CONFIG_FILE)
    try:
        config = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigurationError(f"configuration file {str(file)!r} does not exist") from None
        return {}
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration file {str(file)!r} cannot be read: {error}") from error
    for name in config:
        if name not in ("default", "profiles", "topology"):
            raise ConfigurationError(f"{file}: {_unknown('table', name, ['default', 'profiles', 'topology'])}")
    table(config.get("topology", {}), "topology")
    for name, profile in table(config.get("profiles", {}), "profiles").items():
        table(profile, f"profiles.{name}", 'url = "memory://"')
    if not isinstance(config.get("default", ""), str):
        raise ConfigurationError(f"{file}: default must be the name of a profile, not {config['default']!r}")
    return config


def table(value: Any, path: str, example: str = "") -> Mapping[str, Any]:
    """`value`, which is at `path` in the file. Raises ConfigurationError when it is not a table."""
    if not isinstance(value, Mapping):
        hint = f", for example with {example}" if example else ""
        raise ConfigurationError(f"{CONFIG_FILE}: {path} must be a table, [{path}]{hint}, not {type(value).__name__}")
    return value


def resolve(name: str | None, config: Mapping[str, Any], extra: Mapping[str, Any]) -> Target:
    """Which broker is meant by `name` (a URL, a profile, or None for the environment's). `extra` wins over both.

    Raises ConfigurationError for an unknown profile or a malformed URL.
    """
    if name == "":  # most likely an environment variable that is not set: never a reason to fall back to memory
        raise ConfigurationError("the broker to connect to is an empty text: give a URL or a profile, or None")
    name = name or os.environ.get("MESSAGING_URL") or os.environ.get("MESSAGING_PROFILE") or config.get("default")
    if name is None:
        return parse_url("memory://", extra)
    if "://" in name:
        return parse_url(name, extra)
    profiles = config.get("profiles", {})
    if name not in profiles:
        if not profiles:
            raise ConfigurationError(
                f"no profile {redact(name)!r}: there is none because no {CONFIG_FILE} was found or it has no "
                f"profiles; create one, or give a URL such as 'rabbitmq://localhost'"
            )
        raise ConfigurationError(_unknown("profile", redact(name), profiles))
    profile = {key: _substitute(value, in_url=key == "url") for key, value in profiles[name].items()}
    url = profile.pop("url", None)
    if not isinstance(url, str):
        raise ConfigurationError(f'profile {name!r} has no url; add one, for example url = "memory://"')
    return parse_url(url, {**profile, **extra})


def parse_url(url: str, extra: Mapping[str, Any] | None = None) -> Target:
    """Splits a URL. Options in `extra` win over the query. Raises ConfigurationError when it is malformed."""
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise ConfigurationError(
            f"{redact(url)!r} is not a broker URL: use for example 'rabbitmq://localhost' or 'memory://'"
        )
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    username, _, password = userinfo.partition(":")
    options: dict[str, Any] = {}
    if hosts:
        options["hosts"] = tuple(_host(h, url) for h in hosts.split(","))
    for key, text in (("username", username), ("password", password), ("path", path)):
        if text:
            try:
                options[key] = unquote(text, errors="strict")
            except UnicodeDecodeError:
                raise ConfigurationError(f"the {key} in {redact(url)!r} is not percent-encoded UTF-8") from None
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in options or key in _FROM_URL:
            raise ConfigurationError(f"option {key!r} is given twice in the URL, or belongs before the '?'")
        options[key] = value
    return Target(scheme, {**options, **(extra or {})})


def _host(text: str, url: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]#%@\\]+))(?::([0-9]{1,5}))?", text)
    if match is None or (match[3] and not 0 < int(match[3]) < 65536):
        # The text itself may be a piece of a password with a "/" in it: only the redacted URL is shown.
        raise ConfigurationError(
            f"{redact(url)!r}: each host must be host or host:port, '[...]' around IPv6; "
            f"percent-encode '/', '?', '@' and ':' in a user or password"
        )
    return match[1] or match[2], int(match[3]) if match[3] else None


def redact(url: str) -> str:
    """The URL without its password, for logs and errors. Rather hides too much than too little."""
    url = re.sub(rf"((?:{_SECRET.pattern})\w*=)[^&]*", r"\1***", url, flags=re.IGNORECASE)
    return re.sub(r"^([^:/@]*://[^:/@]*|[^:/@]*):(?!//).*@", r"\1:***@", url, flags=re.DOTALL)


def build_options(cls: type[T], options: Mapping[str, Any], owner: str) -> T:
    """An instance of the dataclass `cls` from text or typed values; `owner` is named in errors.

    Raises ConfigurationError for an unknown option, naming the nearest valid one, and for a value of another type.
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            if name in _FROM_URL:
                raise ConfigurationError(f"{owner} takes no {name} in its URL")
            raise ConfigurationError(f"{owner}: {_unknown('option', name, [k for k in known if k not in _FROM_URL])}")
        values[name] = _convert(value, hints[name], name, owner)
    for name, spec in known.items():
        if name not in values and spec.default is MISSING and spec.default_factory is MISSING:
            raise ConfigurationError(f"{owner} needs the option {name!r}")
    return cls(**values)


def _convert(value: Any, hint: Any, name: str, owner: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a is not type(None)]
        if value is None or len(inner) != 1:
            return value
        hint, origin = inner[0], get_origin(inner[0])
    if origin is Literal:
        if value in get_args(hint):
            return value
        choices = ", ".join(map(repr, get_args(hint)))
        raise ConfigurationError(f"{owner}: option {name!r} must be one of {choices}, not {_shown(name, value)}")
    try:
        if hint is bool:
            return _bool(value)
        if hint is int and not isinstance(value, bool) and float(value) == int(value):
            return int(value)
        if hint is float and not isinstance(value, bool):
            return float(value)
        if hint is str and isinstance(value, str):
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    if hint in (bool, int, float, str):
        raise ConfigurationError(f"{owner}: option {name!r} must be {hint.__name__}, not {_shown(name, value)}")
    if name == "hosts" and not _is_hosts(value):
        raise ConfigurationError(f"{owner}: give the hosts in the URL, as in {owner}://one:1234,two:1234")
    return value


def _is_hosts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(host, tuple) and len(host) == 2 for host in value)


def _shown(name: str, value: Any) -> str:
    return f"a {type(value).__name__}" if _SECRET.search(name) else repr(value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError(value)


def _substitute(value: Any, in_url: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _substitute(inner, False) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substitute(inner, False) for inner in value]
    if not isinstance(value, str):
        return value
    scheme = value.find("://")
    credentials = range(scheme, value.rfind("@")) if in_url and scheme >= 0 else range(0)

    def replace(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigurationError(f"{CONFIG_FILE} uses ${{{match[1]}}}, but that environment variable is not set")
        text = os.environ[match[1]]
        return quote(text, safe="") if match.start() in credentials else text

    return re.sub(r"\$\{(\w+)\}", replace, value)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices)}"
    return f"unknown {what} {name!r}; {hint}"
