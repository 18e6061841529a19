"""Defects that only a broker's own habits show: drops of idle connections, refusals, impatience, temporary groups."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from messaging.delivery import Delivery
from messaging.driver import Done, Outgoing, Receiver
from messaging.errors import MessagingError
from messaging.message import Message
from messaging.options import ConsumerOptions
from messaging.topology import Source, Topic
from messaging_contract.saboteurs.line import LineDriver, LineReceiver, LineSender
from messaging_contract.saboteurs.wrap import HonestReceiver, HonestSender


class LosesTheFirstAfterADrop(LineSender):
    """Confirms the first message after a drop, which it had written into the dead connection."""

    _cuts = 0

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        cuts, self._cuts = self._cuts, self.line.cuts
        if cuts == self.line.cuts or not self.line.up:
            super().send(messages, outgoing, done)
            return
        done(0, None)
        super().send(messages[1:], outgoing, lambda index, error: done(index + 1, error))


class GivesUpSubscribing(LineDriver):
    """Tries to subscribe once; a consumer that was made while the line was down never consumes."""

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        down = not self.line.up
        receiver = super().receiver(source, options)
        if down:
            assert isinstance(receiver, LineReceiver)
            receiver.receive = lambda _most, timeout: (threading.Event().wait(timeout) and []) or []  # type: ignore
        return receiver


class ReturnsAfterClose(LineReceiver):
    """Its reconnect loop outlives close, and consumes again once the line is up."""

    def close(self) -> None:
        if not self.line.up:
            threading.Thread(target=self._return, name="reconnect", daemon=True).start()
        super().close()

    def _return(self) -> None:
        self.line.wait_up(60)
        self.driver.inner.receiver(self.source, self.options).receive(1, 60)


class ForgetsThePattern(LineReceiver):
    """Comes back to all of the topic's messages, whatever its pattern."""

    def reopened(self) -> Receiver:
        if isinstance(self.source.destination, Topic):
            self.driver.server._logs[self.source.destination.name].groups[self.source.name] = "#"
        return super().reopened()


class SwallowsRefusals(HonestSender):
    """Takes the broker's refusal for a confirmation."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, outgoing, lambda index, _error: done(index, None))


class LosesPatience(HonestReceiver):
    """Gives back what it handed out when nobody calls it for a while."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = super().receive(max_messages, timeout)
        if found:
            timer = threading.Timer(0.8, self._give_back, [found])
            timer.daemon = True
            timer.start()
        return found

    def _give_back(self, deliveries: list[Delivery]) -> None:
        try:
            self.inner.nack([delivery for delivery in deliveries if not delivery.settled], 0)
        except MessagingError:
            pass  # closed meanwhile


class LeavesWithItsWork(HonestReceiver):
    """A member that leaves takes what the others are handling with it."""

    def close(self) -> None:
        for store in self.server._stores.values():
            if store.name == self.source.name:
                store.clear()
        super().close()
