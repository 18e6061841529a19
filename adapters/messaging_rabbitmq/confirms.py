"""What was published on a channel and is not confirmed yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from struct import Struct
from typing import TypeAlias

from messaging.driver import Done
from messaging.errors import DestinationNotFound, MessagingError, PublishFailed, Unroutable
from messaging.message import Message
from messaging_rabbitmq import wire
from messaging_rabbitmq.parts import WaitQueue

log = logging.getLogger(__name__)

_confirm = Struct(">IQB").unpack_from
_method_id = Struct(">I").unpack_from
_body_size = Struct(">Q").unpack_from


class Route:
    """Where messages go and what it means when the broker returns one."""

    __slots__ = ("_frames", "_number", "_routing_key", "destination", "exchange", "mandatory", "topic", "wait")

    def __init__(
        self, destination: str, exchange: str, routing_key: str, topic: bool, mandatory: bool, wait: WaitQueue | None
    ) -> None:
        self.destination = destination
        self.exchange = exchange
        self.topic = topic
        self.mandatory = mandatory
        self.wait = wait
        self._routing_key = routing_key
        self._frames: dict[str, bytes] = {}
        self._number = 0

    def frame(self, number: int, type_: str) -> bytes:
        """The basic.publish frame; the routing key is the type for a topic."""
        if self._number != number:
            self._frames.clear()
            self._number = number
        key = type_ if self.topic else self._routing_key
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= 1024:
                self._frames.clear()
            frame = self._frames[key] = wire.publish_frame(number, self.exchange, key)
        return frame

    def goes_to(self, message: Message, where: tuple[str, str]) -> bool:
        """Whether `message` was published with this exchange and routing key."""
        return where == (self.exchange, message.type if self.topic else self._routing_key)

    def returned(self, message: Message) -> MessagingError | None:
        """What a basic.return means for the publisher: nothing when a topic has no subscription for the message."""
        if not self.topic:
            return DestinationNotFound(
                f"publish to {self.destination!r}: there is no such queue, message {message.id} was not stored; "
                f"declare the queue first"
            )
        if not self.mandatory:
            return None
        return Unroutable(
            f"publish to {self.destination!r}: no subscription takes message {message.id} of type {message.type!r}"
        )


class Batch:
    """The messages of one `send`. `attempts`: how often each was delivered before, for copies of deliveries."""

    __slots__ = ("_retried", "attempts", "deadline", "done", "messages", "route")

    def __init__(
        self, messages: Sequence[Message], route: Route, done: Done, deadline: float, attempts: Sequence[int] | None
    ) -> None:
        self.messages = messages
        self.route = route
        self.done = done
        self.deadline = deadline
        self.attempts = attempts
        self._retried: set[int] = set()

    def may_retry(self, index: int) -> bool:
        """True once for each message: its wait queue vanished and may be declared again."""
        if self.route.wait is None or index in self._retried:
            return False
        self._retried.add(index)
        return True


Entry: TypeAlias = tuple[Batch, int]
"""One message: its batch and its index there."""


class Confirms:
    """Matches acks, nacks and returns with messages by their sequence number. Only the I/O thread uses it."""

    def __init__(self) -> None:
        self._pending: dict[int, Entry] = {}
        self._last = 0
        self._lowest = 1
        self._returned: set[int] = set()
        self._return_at = 0
        self._return_header: tuple[str, str] | None = None
        self._return_left = 0
        self.vanished: list[Entry] = []
        """Messages whose wait queue is gone, to be sent once more after declaring it again."""

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, entry: Entry) -> None:
        """The next message on the channel."""
        self._last += 1
        self._pending[self._last] = entry

    def restart(self) -> list[Entry]:
        """A new channel counts from one again. Returns what the old one left unconfirmed, in order."""
        left = [*self.vanished, *self._pending.values()]
        self.vanished.clear()
        self._pending.clear()
        self._returned.clear()
        self._last = self._return_at = self._return_left = 0
        self._lowest = 1
        self._return_header = None
        return left

    def oldest(self) -> Entry | None:
        """The message that has waited longest."""
        return next(iter(self._pending.values()), None)

    def expired(self, now: float) -> list[Entry]:
        """Takes out those whose deadline is over; a confirm that comes later is ignored."""
        late = []
        for number, entry in self._pending.items():
            if entry[0].deadline > now:
                break
            late.append(number)
        return [self._pending.pop(number) for number in late]

    def frame(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """A frame of the channel; False when it is not about publishing."""
        if kind == wire.METHOD:
            if stop - start == 13:
                method, number, flags = _confirm(data, start)
                if method == wire.ACK:
                    self._settle(number, flags & 1, False)
                    return True
                if method == wire.NACK:
                    self._settle(number, flags & 1, True)
                    return True
            elif _method_id(data, start)[0] == wire.RETURN:
                self._return_header = _returned_to(data, start + 6)
                return True
            return False
        if kind == wire.HEADER and self._return_header is not None:
            self._return_left = _body_size(data, start + 4)[0]
            self._find_returned(wire.decode_properties(data[start + 12 : stop]).message_id or "", self._return_header)
            if not self._return_left:
                self._return_header = None
            return True
        if kind == wire.BODY and self._return_header is not None:
            self._return_left -= stop - start
            if self._return_left <= 0:
                self._return_header = None
            return True
        return False

    def _settle(self, number: int, multiple: int, refused: bool) -> None:
        pending = self._pending
        if not multiple:
            entry = pending.pop(number, None)
            if entry is not None:
                if refused or (self._returned and number in self._returned):
                    self._failed(number, entry, refused)
                else:
                    entry[0].done(entry[1], None)
            return
        returned = self._returned
        for lower in range(self._lowest, number + 1):
            entry = pending.pop(lower, None)
            if entry is None:
                continue
            if refused or (returned and lower in returned):
                self._failed(lower, entry, refused)
            else:
                entry[0].done(entry[1], None)
        self._lowest = number + 1

    def _failed(self, number: int, entry: Entry, refused: bool) -> None:
        self._returned.discard(number)
        batch, index = entry
        message, route = batch.messages[index], batch.route
        if batch.may_retry(index):  # a wait queue is never full: it was deleted before the message, or just after it
            self.vanished.append(entry)
        elif refused:
            batch.done(
                index,
                PublishFailed(
                    f"publish to {route.destination!r}: RabbitMQ refused message {message.id}; a queue behind it is "
                    f"full (max_length), or was deleted just now"
                ),
            )
        else:
            batch.done(index, route.returned(message))

    def _find_returned(self, message_id: str, where: tuple[str, str]) -> None:
        # Returns come in publish order, so the search goes on where the last one ended.
        for number in range(max(self._return_at + 1, self._lowest), self._last + 1):
            entry = self._pending.get(number)
            if entry is None:
                continue
            batch, index = entry
            message = batch.messages[index]
            if message.id == message_id and batch.route.goes_to(message, where):
                self._return_at = number
                self._returned.add(number)
                return
        log.debug("RabbitMQ returned message %s, which nobody waits for", message_id)


def _returned_to(data: bytes, at: int) -> tuple[str, str]:
    at += 1 + data[at]
    exchange = wire.text(data[at + 1 : at + 1 + data[at]])
    at += 1 + data[at]
    return exchange, wire.text(data[at + 1 : at + 1 + data[at]])
