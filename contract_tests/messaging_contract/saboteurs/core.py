"""Saboteurs of the core: a broker over the honest driver that does not refuse what no driver is ever asked."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from messaging import Broker, Consumer, InvalidMessage, PublishTimeout, TopologyError
from messaging.options import ConsumerOptions


class TakesAnyMessage(Broker):
    """Says that it published what it does not publish."""

    def publish(self, *arguments: Any, **keywords: Any) -> str:
        try:
            return super().publish(*arguments, **keywords)
        except (InvalidMessage, PublishTimeout):
            return "none"

    def publish_many(self, *arguments: Any, **keywords: Any) -> list[str]:
        try:
            return super().publish_many(*arguments, **keywords)
        except (InvalidMessage, PublishTimeout):
            return []


class WorksWhenClosed(Broker):
    """Has no error for who goes on using it after it was closed."""

    def publish(self, *arguments: Any, **keywords: Any) -> str:
        return "none" if self.closed else super().publish(*arguments, **keywords)

    def ping(self) -> None:
        if not self.closed:
            super().ping()


class IgnoresUnknownOptions(Broker):
    """Ignores a consumer's options that it does not know."""

    def subscribe(self, *arguments: Any, **options: Any) -> Consumer:
        known = {field.name for field in fields(ConsumerOptions)}
        return super().subscribe(*arguments, **{name: value for name, value in options.items() if name in known})


class GuessesWhatIsMeant(Broker):
    """Consumes a queue though a group was named, as if that could mean something."""

    def subscribe(self, destination: Any, group: str | None = None, **options: Any) -> Consumer:
        try:
            return super().subscribe(destination, group, **options)
        except TopologyError:
            return super().subscribe(destination, **options)


class IgnoresThePattern(Broker):
    """Does not mind that a subscription is asked for with another pattern than it was declared with."""

    def subscribe(self, *arguments: Any, pattern: str | None = None, **options: Any) -> Consumer:
        return super().subscribe(*arguments, **options)


class _NeverClosed(Consumer):
    def pause(self) -> None:
        if not self.closed:
            super().pause()


class ForgetsThatItIsClosed(Broker):
    """Lets a closed consumer be paused."""

    def subscribe(self, *arguments: Any, **options: Any) -> Consumer:
        consumer = super().subscribe(*arguments, **options)
        consumer.__class__ = _NeverClosed
        return consumer
