"""Which class an event of the store becomes, and how old ones become new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from messaging.codec import JSON, encode, json_decoder
from messaging.errors import ConfigurationError, DecodeError
from messaging_sql.event_errors import UnknownEventType

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the fields of an event as one version wrote them, returns them as the next version has them."""


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    event: type
    version: int
    upcasts: Mapping[int, Upcast]


class EventTypes:
    """The events of a program: dataclasses, msgspec structs or pydantic models, each under a name of its own.

        types = EventTypes()
        types.add("account.opened", Opened, version=2, upcasts={1: lambda old: {**old, "currency": "EUR"}})

    The name is what the database holds, so the class can be renamed and moved. Fill it before it is used; after that
    any thread may use it.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, _Type] = {}
        self._by_class: dict[type, _Type] = {}
        self._decoders: dict[type, Callable[[str | bytes], Any]] = {}

    def add(
        self,
        name: str,
        event: type,
        *,
        version: int = 1,
        upcasts: Mapping[int, Upcast] | None = None,
        formerly: Iterable[str] = (),
    ) -> None:
        """Registers `event`. version: of its fields, 1 at first; raise it with every change that old data does not fit.

        upcasts: for each earlier version, what makes the next one of it. formerly: names that it had.
        Raises ConfigurationError when a name or class is taken, or an upcast is missing.
        """
        upcasts = dict(upcasts or {})
        missing = sorted(set(range(1, version)) ^ set(upcasts))
        if version < 1 or missing:
            raise ConfigurationError(
                f"event type {name!r} has version {version}: it needs an upcast for each version from 1 to "
                f"{version - 1}, and for no other (see {missing})"
            )
        if not isinstance(event, type):
            raise ConfigurationError(f"event type {name!r} needs a class, not {event!r}")
        if event in self._by_class:
            raise ConfigurationError(f"{event.__name__} is already registered as {self._by_class[event].name!r}")
        known = _Type(name, event, version, upcasts)
        for each in (name, *formerly):
            if not each or len(each) > 255:
                raise ConfigurationError(f"an event type needs a name of 1 to 255 characters, not {each!r}")
            if each in self._by_name:
                raise ConfigurationError(
                    f"event type {each!r} is already registered, for {self._by_name[each].event.__name__}"
                )
            self._by_name[each] = known
        self._by_class[event] = known

    def names(self, event: type) -> list[str]:
        """Every name that events of this class have in the store. Raises UnknownEventType."""
        known = self._of_class(event)
        return [name for name, each in self._by_name.items() if each is known]

    def encode(self, value: object) -> tuple[str, int, str]:
        """Name, version and JSON of an event. Raises UnknownEventType, EncodeError."""
        known = self._of_class(type(value))
        return known.name, known.version, encode(value, JSON)[0].decode()

    def decode(self, name: str, version: int, data: str, where: Callable[[], str] = str) -> Any:
        """The event as the class that is registered now, whatever version it was written with.

        where: called for the text of errors. Raises UnknownEventType, and DecodeError when the data does not fit.
        """
        known = self._by_name.get(name)
        if known is None:
            raise UnknownEventType(
                f"event type {name!r}{where()} is not registered: add its class with types.add({name!r}, ...); if it "
                f"was renamed, name it in `formerly` of the new one; or read with `types=` to leave it out"
            )
        if version > known.version:
            raise UnknownEventType(
                f"event {name!r}{where()} has version {version}, and this program knows up to {known.version}: a newer "
                f"program wrote it. Update this one, or read with `types=` to leave it out"
            )
        try:
            if version == known.version:
                return self._decoder(known.event)(data)
            fields = msgspec.json.decode(data)
            for old in range(version, known.version):
                fields = known.upcasts[old](fields)
            return self._decoder(known.event)(msgspec.json.encode(fields))
        except Exception as error:
            raise DecodeError(
                f"event {name!r}{where()}, written with version {version}, does not become a {known.event.__name__}: "
                f"{error}. If its fields have changed, raise the version and add an upcast"
            ) from error

    def _decoder(self, event: type) -> Callable[[str | bytes], Any]:
        found = self._decoders.get(event)
        if found is None:  # made at its first use: when a class is added, those that it names may not be there yet
            found = self._decoders[event] = json_decoder(event)
        return found

    def _of_class(self, event: type) -> _Type:
        known = self._by_class.get(event)
        if known is None:
            raise UnknownEventType(
                f"{event.__name__} is not a registered event: add it with types.add('...', {event.__name__})"
            )
        return known
