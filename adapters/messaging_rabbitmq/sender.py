"""Publishing: pipelined, confirmed, mandatory, and sent again after a lost connection."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

from pika.channel import Channel

from messaging.driver import Done, Outgoing, Sender
from messaging.errors import Closed, MessagingError, PublishTimeout, UnsupportedCapability
from messaging.message import Message
from messaging.topology import Topic
from messaging_rabbitmq import wire
from messaging_rabbitmq.confirms import Batch, Confirms, Entry, Route
from messaging_rabbitmq.connection import FrameHandler
from messaging_rabbitmq.link import Link, LinkUser
from messaging_rabbitmq.parts import MAX_DELAY, WaitQueue, round_delay
from messaging_rabbitmq.refusals import refused_by
from messaging_rabbitmq.waits import WaitQueues

_REOPEN_SECONDS = 0.5


class RabbitMQSender(LinkUser, FrameHandler, Sender):
    """One channel in confirm mode.

    `send` and `close` may be called from any thread and hand over through `_incoming`, a deque, whose appends and
    pops are atomic; everything else happens on the link's I/O thread, which alone touches the remaining fields.
    Messages wait in `_waiting` until the channel is open and the broker takes publishes, then in `_confirms` until
    they are confirmed; deadlines run in both, and both are in the order of `send`.
    """

    def __init__(
        self, link: Link, waits: WaitQueues, timeout: float, on_closed: Callable[[RabbitMQSender], None]
    ) -> None:
        self._link = link
        self._waits = waits
        self._timeout = timeout
        self._on_closed = on_closed
        self._routes: dict[tuple[bool, str, float, bool], Route] = {}
        self._incoming: deque[Batch] = deque()
        self._woken = False
        self._closed = False
        self._idle = Event()
        self._draining = False
        self._ended = False
        self._waiting: deque[Entry] = deque()
        self._confirms = Confirms()
        self._channel: Channel | None = None
        self._ready = False
        self._preparing = False
        self._timer: Any = None
        self._held = False
        link.submit(lambda: link.join(self))

    # -- any thread

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        self._hand_over(messages, self._route(outgoing), done, None)

    def send_copies(
        self, messages: Sequence[Message], wait: WaitQueue | str, attempts: Sequence[int], done: Done
    ) -> None:
        """Sends copies of deliveries to a wait queue, or to a queue by name, with the attempts made so far."""
        name, topic, behind = (wait, False, None) if isinstance(wait, str) else (wait.name, wait.topic, wait)
        self._hand_over(messages, Route(name, "", name, topic, True, behind), done, attempts)

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        if self._link.alive():
            self._link.submit(self._drain)
            self._idle.wait(timeout)
            ended = Event()
            self._link.submit(lambda: self._end(ended))
            if not ended.wait(5) and not self._link.alive():
                self._end(ended)
        else:
            self._end(Event())
        self._on_closed(self)

    def _hand_over(self, messages: Sequence[Message], route: Route, done: Done, attempts: Sequence[int] | None) -> None:
        if self._closed:
            raise Closed(f"publish to {route.destination!r}: the producer is closed")
        self._incoming.append(Batch(messages, route, done, time.monotonic() + self._timeout, attempts))
        # Cleared by `_pump` before it empties the deque, so nothing is left behind.
        if not self._woken:
            self._woken = True
            self._link.submit(self._pump)
        if self._ended:
            self._refuse_late()

    def _refuse_late(self) -> None:
        """Reports what a `send` handed over while `close` was at work in another thread."""
        while self._incoming:
            try:
                batch = self._incoming.popleft()
            except IndexError:
                return
            for index in range(len(batch.messages)):
                batch.done(index, Closed(f"publish to {batch.route.destination!r}: the producer was closed meanwhile"))

    def _route(self, outgoing: Outgoing) -> Route:
        destination = outgoing.only or outgoing.destination  # a subscription is a queue
        topic = isinstance(destination, Topic)
        key = (topic, destination.name, outgoing.delay, outgoing.mandatory)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= 1024:
                self._routes.clear()
            route = self._routes[key] = self._new_route(destination.name, topic, outgoing)
        return route

    @staticmethod
    def _new_route(name: str, topic: bool, outgoing: Outgoing) -> Route:
        if outgoing.delay > MAX_DELAY:
            raise UnsupportedCapability(
                f"publish to {name!r}: RabbitMQ delays for at most {MAX_DELAY:g} seconds, not {outgoing.delay:g}"
            )
        if outgoing.delay > 0:
            wait = WaitQueue(name, round_delay(outgoing.delay), topic=topic)
            return Route(name, wait.exchange, wait.name, topic, True, wait)
        return Route(name, name if topic else "", name, topic, outgoing.mandatory, None)

    # -- the I/O thread

    def link_up(self) -> None:
        self._waits.clear()
        self._open()

    def link_down(self, error: MessagingError | None) -> None:
        self._take_back()

    def link_blocked(self) -> None:
        self._tell_blocked()

    def link_unblocked(self) -> None:
        self._tell_blocked()
        self._write()

    def frame(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        return self._confirms.frame(kind, data, start, stop)

    def frames_end(self) -> None:
        vanished = self._confirms.vanished
        if vanished:
            for batch, _ in vanished:
                if batch.route.wait is not None:
                    self._waits.forget(batch.route.wait)
            self._waiting.extendleft(reversed(vanished))
            vanished.clear()
            self._write()
        if self._held:
            self._tell_blocked()
        if self._draining:
            self._check_idle()

    def _open(self) -> None:
        connection = self._link.connection
        if self._ended or connection is None or not self._link.up or self._channel is not None:
            return
        self._channel = connection.open_channel(self._on_open, self._on_channel_closed)

    def _on_open(self, channel: Channel) -> None:
        channel.confirm_delivery(lambda _frame: None, callback=self._on_confirming)

    def _on_confirming(self, _frame: Any) -> None:
        connection = self._link.connection
        if connection is None or self._channel is None:
            return
        self._confirms.restart()
        connection.handlers[self._channel.channel_number] = self
        self._ready = True
        self._write()

    def _on_channel_closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._take_back()
        delay = 0.0
        if self._link.up:
            most = len(self._waiting)
            # A vanished exchange may have been a wait queue's.
            self._waits.clear()
            for entry, error in refused_by(reason, self._waiting):
                entry[0].done(entry[1], error)
            if len(self._waiting) == most:
                # Nobody knows which message it was: do not try again at full speed.
                delay = _REOPEN_SECONDS
            self._link.later(delay, self._open)

    def _take_back(self) -> None:
        """What is unconfirmed is to be sent again, before everything that came later."""
        self._ready = False
        channel, self._channel = self._channel, None
        self._link.let_go(channel)
        self._waiting.extendleft(reversed(self._confirms.restart()))
        self._tell_blocked()

    def _tell_blocked(self) -> None:
        """What was written when the broker stopped reading waits as well as what was not."""
        held = self._link.blocked and bool(self._waiting or self._confirms)
        if held != self._held:
            self._held = held
            if held:
                self.waits.begin("blocked", "RabbitMQ is short of memory or disk")
            else:
                self.waits.end("blocked")

    def _pump(self) -> None:
        self._woken = False
        if self._ended:
            self._refuse_late()
            return
        incoming, waiting = self._incoming, self._waiting
        while incoming:
            batch = incoming.popleft()
            waiting.extend((batch, index) for index in range(len(batch.messages)))
        if self._timer is None and waiting:
            self._arm()
        self._write()

    def _write(self) -> None:
        link, waiting = self._link, self._waiting
        connection = link.connection
        channel = self._channel
        if link.blocked:
            self._tell_blocked()
            return
        if not self._ready or not waiting or connection is None or channel is None:
            return
        number, frame_max, waits, confirms = channel.channel_number, connection.frame_max, self._waits, self._confirms
        frames: list[bytes] = []
        while waiting:
            batch, index = entry = waiting[0]
            route = batch.route
            if route.wait is not None and not waits.ready(route.wait):
                self._prepare(route.wait)
                break
            waiting.popleft()
            message = batch.messages[index]
            attempts = 0 if batch.attempts is None else batch.attempts[index]
            try:
                method = route.frame(number, message.type)
                content = wire.content_frames(message, attempts, number, frame_max)
            except MessagingError as error:
                batch.done(index, error)
                continue
            frames.append(method)
            frames.append(content)
            confirms.add(entry)
        if frames:
            connection.write(frames)

    def _prepare(self, wait: WaitQueue) -> None:
        if self._preparing:
            return
        self._preparing = True

        def prepared(error: BaseException | None) -> None:
            self._preparing = False
            if isinstance(error, MessagingError):
                self._fail(lambda entry: entry[0].route.wait == wait, error)
            elif error is not None:
                # The connection went while asking; `link_up` writes again, and this in case it is already back.
                self._link.later(_REOPEN_SECONDS, self._write)
                return
            self._write()
            self._check_idle()

        self._waits.prepare(wait, prepared)

    def _fail(self, affected: Callable[[Entry], bool], error: MessagingError) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        self._waiting.extend(entry for entry in waiting if not affected(entry))
        for entry in waiting:
            if affected(entry):
                entry[0].done(entry[1], error)

    def _arm(self) -> None:
        first = self._confirms.oldest() or (self._waiting[0] if self._waiting else None)
        if first is None:
            self._timer = None
        else:
            self._timer = self._link.later(first[0].deadline - time.monotonic(), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        late = self._confirms.expired(now)
        waiting = self._waiting
        while waiting and waiting[0][0].deadline <= now:
            late.append(waiting.popleft())
        for batch, index in late:
            batch.done(index, self._timeout_error(batch, index))
        self._tell_blocked()
        self._arm()
        self._check_idle()

    def _timeout_error(self, batch: Batch, index: int) -> PublishTimeout:
        why = "no confirmation came"
        if self._link.blocked:
            why = "RabbitMQ blocks publishing: it is short of memory or disk"
        elif not self._ready:
            why = f"RabbitMQ cannot be reached: {self._link.problem or 'the connection was lost'}"
        return PublishTimeout(
            f"publish to {batch.route.destination!r}: message {batch.messages[index].id} was not confirmed within "
            f"{self._timeout:g} seconds ({why}); it may or may not have been stored"
        )

    def _drain(self) -> None:
        self._draining = True
        self._pump()
        self._check_idle()

    def _check_idle(self) -> None:
        if self._draining and not self._waiting and not self._confirms and not self._incoming:
            self._idle.set()

    def _end(self, ended: Event) -> None:
        if self._ended:
            return
        self._ended = True
        self._link.leave(self)
        if self._timer is not None:
            self._link.cancel(self._timer)
            self._timer = None
        self._take_back()
        for batch in self._incoming:
            self._waiting.extend((batch, index) for index in range(len(batch.messages)))
        self._incoming.clear()
        for batch, index in self._waiting:
            batch.done(index, self._timeout_error(batch, index))
        self._waiting.clear()
        self._tell_blocked()
        ended.set()
