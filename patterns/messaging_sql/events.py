"""An event: as it is appended, and as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec


class Expected(Enum):
    """What an append expects of its stream, where it is not a version."""

    NO_STREAM = "no stream"
    STREAM_EXISTS = "the stream exists"
    ANY = "any version"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event with an id of the caller's, a UUID, so that appending it again is refused; and metadata of its own."""

    value: object
    id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Appended:
    """version, position, event_id: of the last event, so `version` is that of the stream after the append."""

    version: int
    position: int
    event_id: str


@dataclass(slots=True, eq=False)
class Recorded:
    """An event as the store holds it. Not to be changed.

    position: in the store, from 1, without gaps. version: in the stream, from 1, without gaps. schema: the version of
    the type that it was written with. time: seconds since the epoch (UTC) by the clock of the writer; what orders
    events is the position.
    """

    position: int
    stream: str
    version: int
    id: str
    type: str
    schema: int
    data: str
    _metadata: str | None
    time: float
    _decode: Callable[[str, int, str, Callable[[], str]], Any]
    _value: Any = None

    @property
    def value(self) -> Any:
        """The event itself, in the newest version of its type. Raises UnknownEventType, DecodeError."""
        if self._value is None:
            self._value = self._decode(self.type, self.schema, self.data, self._where)
        return self._value

    def _where(self) -> str:
        return f" (stream {self.stream!r}, version {self.version}, position {self.position})"

    @property
    def metadata(self) -> dict[str, str]:
        """What was told when it was appended."""
        return msgspec.json.decode(self._metadata, type=dict[str, str]) if self._metadata else {}

    @property
    def correlation_id(self) -> str | None:
        """What all events and messages of one business process have in common."""
        return self.metadata.get("correlation_id")

    @property
    def causation_id(self) -> str | None:
        """The id of the message or event that this one follows from."""
        return self.metadata.get("causation_id")


def category_of(stream: str) -> str:
    """What is before the first dash: `account` of `account-42`."""
    return stream.partition("-")[0]
