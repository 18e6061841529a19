"""Saboteurs of backpressure: who waits does not say so, or what is held back is let through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from messaging import Broker, Queue, TopologyError
from messaging.delivery import Delivery
from messaging.producer import Producer
from messaging.topology import Source
from messaging.waits import Reason, Waits
from messaging_contract.saboteurs.line import LineDriver
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver, HonestSender


class _Changed(Waits):
    def __init__(self, inner: Waits) -> None:
        super().__init__()
        self.inner = inner

    def note(self, reason: Reason, waiting: bool, detail: str = "") -> None:
        self.inner.note(reason, waiting, detail)

    def tell(self) -> None:
        self.inner.tell()


class TellsNothing(HonestSender):
    """Waits for a broker that takes nothing, without a word."""

    def report_waits(self, waits: Waits) -> None:
        pass


class _NeverEnding(_Changed):
    def note(self, reason: Reason, waiting: bool, detail: str = "") -> None:
        if waiting:
            super().note(reason, waiting, detail)


class NeverSaysThatItGoesOn(HonestSender):
    """Tells that it waits, and not that it goes on."""

    def report_waits(self, waits: Waits) -> None:
        super().report_waits(_NeverEnding(waits))


class _OtherWords(_Changed):
    def note(self, reason: Reason, waiting: bool, detail: str = "") -> None:
        super().note("throttled" if reason == "blocked" else reason, waiting, detail)


class NamesAnotherReason(HonestSender):
    """Says "throttled" where the broker takes nothing."""

    def report_waits(self, waits: Waits) -> None:
        super().report_waits(_OtherWords(waits))


class _Unguarded(_Changed):
    def tell(self) -> None:
        on_wait = self.inner._on_wait
        while on_wait is not None and (wait := self.inner._next()) is not None:
            on_wait(wait)


class TrustsTheCallback(HonestSender):
    """Stumbles over a callback that raises."""

    def report_waits(self, waits: Waits) -> None:
        super().report_waits(_Unguarded(waits))


class ForgetsTheCallback(Broker):
    """Makes producers that tell nobody."""

    def producer(self, **options: Any) -> Producer:
        options.pop("on_wait", None)
        return super().producer(**options)


class DepthIsZero(HonestDriver):
    """Says that nothing waits."""

    def depth(self, source: Source) -> int:
        return 0


class GuessesTheDepth(LineDriver):
    """Says that nothing waits while it cannot know."""

    def depth(self, source: Source) -> int:
        return super().depth(source) if self.line.up else 0


class GivesBackOnPause(HonestReceiver):
    """Gives what is unsettled back to the broker when it is paused."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._handed_out: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        self._handed_out += deliveries
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._handed_out = [delivery for delivery in self._handed_out if delivery not in deliveries]
        super().ack(deliveries)

    def pause(self) -> None:
        super().pause()
        self.inner.nack(self._handed_out, 0.0)
        self._handed_out = []


class FindsAnySource(Broker):
    """Takes what is not declared for an empty queue."""

    def source(self, destination: Any, group: str | None = None) -> Source:
        try:
            return super().source(destination, group)
        except TopologyError:
            return Source(Queue("none"))
