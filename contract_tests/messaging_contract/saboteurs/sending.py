"""Saboteurs of the sending side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from threading import Timer
from typing import Any

from messaging.dead_letter import alive_again
from messaging.delivery import Delivery
from messaging.driver import Done, Outgoing
from messaging.errors import MessagingError
from messaging.message import Message
from messaging.topology import Queue, Topic
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


class DelaysInTheClient(HonestSender):
    """Keeps a delayed message to itself until its time, and forgets it when it is closed before."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._timers: list[Timer] = []

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        if not outgoing.delay:
            super().send(messages, outgoing, done)
            return
        now = replace(outgoing, delay=0.0)
        timer = Timer(outgoing.delay, super().send, (messages, now, lambda _index, _error: None))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)
        for index in range(len(messages)):
            done(index, None)

    def close(self, timeout: float) -> None:
        for timer in self._timers:
            timer.cancel()
        super().close(timeout)


class DeduplicatesById(HonestSender):
    """Confirms a message with an id that was there before, and does not store it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._seen: set[str] = set()

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        for index, message in enumerate(messages):
            if message.id in self._seen:
                done(index, None)
            else:
                self._seen.add(message.id)
                super().send([message], outgoing, lambda _one, error, index=index: done(index, error))  # type: ignore[misc]


class LeaksToOtherTopics(HonestSender):
    """Puts messages for a topic into another one as well, as a binding that is too wide does."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, outgoing, done)
        others = [log.topic for log in self.server._logs.values() if log.topic.name != outgoing.destination.name]
        if isinstance(outgoing.destination, Topic) and others:
            super().send(messages, replace(outgoing, destination=others[-1]), lambda _index, _error: None)


class ConfirmsFirst(HonestSender):
    """Confirms what it is about to send, and forgets at close what it has not sent yet."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._timers: list[Timer] = []

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        timer = Timer(0.05, super().send, (messages, outgoing, lambda _index, _error: None))
        timer.daemon = True
        timer.start()
        self._timers = [*(t for t in self._timers if t.is_alive()), timer]
        for index in range(len(messages)):
            done(index, None)

    def close(self, timeout: float) -> None:
        for timer in self._timers:
            timer.cancel()
        super().close(timeout)


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


class StaysBroken(HonestSender):
    """Has one channel for all, which the broker closes when a destination is gone, and does not open another."""

    _broken: MessagingError | None = None

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        def noting(index: int, error: MessagingError | None) -> None:
            self._broken = error or self._broken
            done(index, error)

        if self._broken is not None:
            for index in range(len(messages)):
                done(index, self._broken)
        else:
            super().send(messages, outgoing, noting)


class SwallowsBatchFailures(HonestSender):
    """Confirms every message of a batch, whatever happened."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        single = len(messages) == 1
        super().send(messages, outgoing, lambda index, error: done(index, error if single else None))


class CutsOffHeaders(ChangesMessages):
    """Carries only so much of a header."""

    def change(self, message: Message) -> Message:
        return replace(message, headers={name: value[:50_000] for name, value in message.headers.items()})


class CutsOffBodies(ChangesMessages):
    """Carries only so much of a body."""

    def change(self, message: Message) -> Message:
        return replace(message, body=message.body[:65_536])


class ForgetsUnknownContentTypes(ChangesMessages):
    """Carries a content type only when it is one that everybody knows."""

    def change(self, message: Message) -> Message:
        known = message.content_type is None or not message.content_type.startswith("application/x-")
        return message if known else replace(message, content_type=None)


class LeavesTheEnvelope(ChangesMessages):
    """Delivers a message inside what the broker's notification service wraps around it."""

    def change(self, message: Message) -> Message:
        envelope = {"Type": "Notification", "Message": message.body.decode(errors="replace")}
        return replace(message, body=json.dumps(envelope).encode())


class OnePropertySetABatch(HonestSender):
    """Gives all messages of a batch the content type of the first, and its type."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        first = messages[0]
        alike = [replace(message, content_type=first.content_type, type=first.type) for message in messages]
        super().send(alike, outgoing, done)


class NeedsASubscriber(HonestSender):
    """Publishes everything as if it were mandatory."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, replace(outgoing, mandatory=True), done)


class ConfirmsWithTheNext(HonestSender):
    """Reports a confirm when the next one comes: it reads 'up to' where the broker means 'up to and including'."""

    _last: Any = None

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        def later(index: int, error: MessagingError | None) -> None:
            if self._last is not None:
                self._last()
            self._last = lambda: done(index, error)

        super().send(messages, outgoing, later)


class RedrivesToEverybody(HonestSender):
    """Brings a dead letter back to every group of its topic."""

    def send_again(self, letters: Sequence[Delivery], outgoing: Outgoing, done: Done) -> None:
        super().send_again(letters, replace(outgoing, only=None), done)


class RedrivesAsNew(HonestSender):
    """Brings a dead letter back under another id."""

    def send_again(self, letters: Sequence[Delivery], outgoing: Outgoing, done: Done) -> None:
        self.send([replace(alive_again(letter), id=f"{letter.id}-again") for letter in letters], outgoing, done)


class RedrivesUnheard(HonestSender):
    """Takes every copy of a dead letter to be stored."""

    def send_again(self, letters: Sequence[Delivery], outgoing: Outgoing, done: Done) -> None:
        super().send_again(letters, outgoing, lambda index, _error: done(index, None))


class RedrivesWithTheStory(HonestSender):
    """Brings a dead letter back with what dead-lettering put into its headers."""

    def send_again(self, letters: Sequence[Delivery], outgoing: Outgoing, done: Done) -> None:
        self.send([letter.message for letter in letters], outgoing, done)
