"""Saboteurs of the core: a broker over the honest driver that does not refuse what no driver is ever asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from messaging import Broker, Consumer, Delivery, InvalidMessage, PublishTimeout, TopologyError
from messaging.dead_letter_queue import DeadLetterQueue, Redriven
from messaging.options import ConsumerOptions
from messaging.redrive_ledger import RedriveLedger
from messaging.topology import Destination


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


class _OnePause(Consumer):
    def let_go(self, holder: object) -> None:
        self._holders.clear()
        super().let_go(holder)


class LetsGoForAll(Broker):
    """Goes on as soon as one of those who paused a consumer lets it."""

    def subscribe(self, *arguments: Any, **options: Any) -> Consumer:
        consumer = super().subscribe(*arguments, **options)
        consumer.__class__ = _OnePause
        return consumer


class _KnowsIds(DeadLetterQueue):
    _ids: frozenset[str] = frozenset()

    def _sort(
        self, letters: Sequence[Delivery], remembered: RedriveLedger, result: Redriven
    ) -> tuple[list[Delivery], list[Delivery]]:
        gone = [letter for letter in letters if letter.id in self._ids]
        result.already += len(gone)
        self._ids |= {letter.id for letter in letters}
        return gone, [letter for letter in letters if letter not in gone]


class TakesOutWhatHasAKnownId(Broker):
    """A redrive takes out what has the id of one that was moved before, though it has come back since."""

    def dead_letter_queue(self, destination: str | Destination, group: str | None = None) -> DeadLetterQueue:
        letters = super().dead_letter_queue(destination, group)
        letters.__class__ = _KnowsIds
        return letters
