"""Saboteurs of the sending side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Timer
from typing import Any

from messaging.driver import Done, Outgoing
from messaging.errors import MessagingError
from messaging.message import Message
from messaging.topology import Queue
from messaging_contract.saboteurs.wrap import HonestSender


class DropsEverySeventh(HonestSender):
    """Confirms every seventh message without storing it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._count = 0

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        for index, message in enumerate(messages):
            self._count += 1
            if self._count % 7:
                super().send([message], outgoing, lambda _one, error, index=index: done(index, error))  # type: ignore[misc]
            else:
                done(index, None)


class DuplicatesInBatches(HonestSender):
    """Sends the first message of a batch twice."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        if len(messages) > 1:
            super().send(messages[:1], outgoing, lambda _index, _error: None)
        super().send(messages, outgoing, done)


class LosesTheEndOfBatches(HonestSender):
    """Sends the first ten messages of a batch, and confirms all."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages[:10], outgoing, done)
        for index in range(10, len(messages)):
            done(index, None)


class SendsBatchesBackwards(HonestSender):
    """Stores a batch back to front."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        last = len(messages) - 1
        super().send(messages[::-1], outgoing, lambda index, error: done(last - index, error))


class LeaksToOthers(HonestSender):
    """Puts messages for a queue into another queue as well."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, outgoing, done)
        queues = [queue for queue in self.server._queues.values() if not queue.name.endswith("--dlq")]
        others = [queue for queue in queues if queue != outgoing.destination]
        if isinstance(outgoing.destination, Queue) and others:
            super().send(messages, replace(outgoing, destination=others[-1]), lambda _index, _error: None)


class IgnoresTheDelay(HonestSender):
    """Delivers delayed messages at once."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, replace(outgoing, delay=0.0), done)


class IgnoresMandatory(HonestSender):
    """Does not tell when nobody takes a message."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, replace(outgoing, mandatory=False), done)


class SwallowsErrors(HonestSender):
    """Confirms whatever happened."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, outgoing, lambda index, _error: done(index, None))


class ChangesMessages(HonestSender):
    """Does something to the messages it sends."""

    def change(self, message: Message) -> Message:
        raise NotImplementedError

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send([self.change(message) for message in messages], outgoing, done)


class NewIds(ChangesMessages):
    """Gives messages an id of its own."""

    def change(self, message: Message) -> Message:
        return replace(message, id=f"new-{message.id}")


class ManglesEmptyBodies(ChangesMessages):
    """Turns an empty body into null."""

    def change(self, message: Message) -> Message:
        return replace(message, body=message.body or b"null")


class IgnoresTtl(ChangesMessages):
    """Forgets when a message expires."""

    def change(self, message: Message) -> Message:
        return replace(message, expires_at=None)


class LosesTheKey(ChangesMessages):
    """Forgets the key of messages that need none."""

    def change(self, message: Message) -> Message:
        return (
            message
            if message.key and message.key.startswith("k") and len(message.key) > 1
            else replace(message, key=None)
        )


class StripsWhitespace(ChangesMessages):
    """Treats bodies as text."""

    def change(self, message: Message) -> Message:
        return replace(message, body=message.body.strip())


class NeverFlushes(HonestSender):
    """Sends a little later, and forgets at close what it has not sent yet."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._timers: list[Timer] = []

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        timer = Timer(0.02, super().send, (messages, outgoing, done))
        timer.daemon = True
        self._timers = [*(t for t in self._timers if t.is_alive()), timer]
        timer.start()

    def close(self, timeout: float) -> None:
        for timer in self._timers:
            timer.cancel()
        super().close(timeout)


class ForgetsOneFailure(HonestSender):
    """Never reports what became of a message that failed."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        def only_good(index: int, error: MessagingError | None) -> None:
            if error is None:
                done(index, None)

        super().send(messages, outgoing, only_good)


class SwallowsBatchFailures(HonestSender):
    """Confirms every message of a batch, whatever happened."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        single = len(messages) == 1
        super().send(messages, outgoing, lambda index, error: done(index, error if single else None))


class CutsOffHeaders(ChangesMessages):
    """Carries only so much of a header."""

    def change(self, message: Message) -> Message:
        return replace(message, headers={name: value[:50_000] for name, value in message.headers.items()})
