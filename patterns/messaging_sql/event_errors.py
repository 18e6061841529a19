"""What can go wrong with events, as errors of the one tree."""

from __future__ import annotations

from messaging.errors import ConfigurationError, MessagingError


class VersionConflict(MessagingError):
    """The stream is not at the version that the append expected; nothing was written.

    stream, expected, actual: what was told, and the version that was found. None: it is not known, because the
    transaction of the caller is older than the event that was in the way.
    """

    def __init__(self, text: str, stream: str, expected: object, actual: int | None) -> None:
        super().__init__(text)
        self.stream = stream
        self.expected = expected
        self.actual = actual


class DuplicateEvent(MessagingError):
    """An event with this id is in the store already; nothing was written. It was appended before: this is no loss."""


class UnknownEventType(ConfigurationError):
    """The store holds, or was given, an event of a type that is not registered. The text says how to register it."""


class StreamNotFound(MessagingError):
    """The stream has no events: the aggregate does not exist."""


class ProjectionFailed(MessagingError):
    """A handler raised, and the projection stopped before this event. `__cause__` is what it raised.

    name: the projection. position: of the event that failed; what is before it is done, and committed.
    """

    def __init__(self, text: str, name: str, position: int) -> None:
        super().__init__(text)
        self.name = name
        self.position = position
