"""Publishing: bounded in flight, confirmed per message."""

from __future__ import annotations

import atexit
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import Condition, Semaphore
from types import TracebackType
from typing import Any, Self, Unpack

from messaging.capabilities import Capabilities
from messaging.codec import encode
from messaging.driver import Done, Driver, Outgoing, Sender
from messaging.errors import (
    BatchPublishFailed,
    Closed,
    InvalidMessage,
    MessagingError,
    ProducerFull,
    PublishTimeout,
    UnsupportedCapability,
)
from messaging.message import Message, MessageFields, PlainValue, check_message, id_factory, plain_message
from messaging.options import ProducerOptions
from messaging.topology import Destination, Topic
from messaging.waits import Waits

log = logging.getLogger(__name__)

_CHUNK = 500
"""Messages handed to the driver at a time by `publish_many`: enough to amortise locks, small beside `max_in_flight`."""

_LOT = 50
"""Confirmations of a `publish_many` after which their slots are given back."""

_GRACE = 5.0
"""Seconds beyond the deadline that a driver has to report an outcome before a waiting publish gives up on it."""

_LONGEST = 1e9
"""Seconds a lock can be asked to wait, whatever the caller asked for."""

Resolve = Callable[[str | Destination], Destination]
"""Turns what the caller named into what was declared. Raises TopologyError for an undeclared name."""


class Producer:
    """Publishes to queues and topics of one broker. Every method may be called from any thread.

    `_slots` guards `_in_flight`, the number of messages handed to the driver and not yet reported; `_reporting`, the
    outcomes that are on their way into a future; and `_line`, who waits for slots: first come, first served, so that
    a large `publish_many` is not overtaken for ever by single messages.
    """

    def __init__(
        self, driver: Driver, resolve: Resolve, options: ProducerOptions, sender: Sender | None = None
    ) -> None:
        """sender: a particular one, which is not closed with this producer's broker."""
        self._driver = driver
        self._resolve = resolve
        self.options = options
        self._sender = sender or driver.sender(options)
        self._waits = Waits(options.on_wait)
        self._sender.report_waits(self._waits)
        self._next_id = id_factory()
        self._slots = Condition()
        self._in_flight = 0
        self._reporting = 0
        self._line: deque[object] = deque()
        self._closed = False
        _living.add(self)

    def publish(
        self,
        destination: str | Destination,
        value: Any,
        *,
        delay: float = 0.0,
        mandatory: bool = False,
        timeout: float | None = None,
        **fields: Unpack[MessageFields],
    ) -> str:
        """Publishes one message and returns its id once the broker has safely stored it.

        value: bytes pass through, everything else becomes JSON. delay: seconds before it may be delivered.
        mandatory: raise Unroutable when no subscription takes it. timeout: seconds, `options.timeout` when None.

        Raises, with nothing sent: TopologyError (undeclared name), InvalidMessage, EncodeError, MessageTooLarge,
        UnsupportedCapability, ProducerFull, Closed. Raises DestinationNotFound, Unroutable or PublishFailed when the
        broker refused it, and PublishTimeout when the outcome is unknown.
        """
        limit = self._limit(timeout, _name(destination))
        deadline = time.monotonic() + limit
        future = self._publish(destination, value, delay, mandatory, limit, fields)
        # Without a timeout of its own it waits for what the driver reports, which counts from the hand-over.
        deadline = deadline if timeout is not None else time.monotonic() + limit + _GRACE
        try:
            return future.result(max(deadline - time.monotonic(), 0.0))
        except TimeoutError:
            if future.done():
                raise
            raise PublishTimeout(
                f"publish to {_name(destination)!r}: no confirmation within {limit:g} s; it may or may not be stored"
            ) from None

    def publish_nowait(
        self,
        destination: str | Destination,
        value: Any,
        *,
        delay: float = 0.0,
        mandatory: bool = False,
        **fields: Unpack[MessageFields],
    ) -> Future[str]:
        """Publishes without waiting for the broker. The future gives the id, or the error, as `publish` would.

        Blocks or raises ProducerFull while `max_in_flight` messages await confirmation (`on_full`). The future's
        callbacks run on the driver's thread: they must not block. Raises what `publish` raises with nothing sent.
        """
        return self._publish(destination, value, delay, mandatory, self.options.timeout, fields)

    def publish_many(
        self, destination: str | Destination, items: Iterable[Any], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[str]:
        """Publishes values or `Message`s, in order, and returns their ids once the broker has stored every one.

        All of them are encoded and checked before the first is sent. Raises BatchPublishFailed, which tells the
        error of each that failed (the others are stored), or with nothing sent what `publish` raises.
        """
        target = self._check(destination, delay, False)
        now = time.time()
        messages = self._prepare_many(items, target, now)
        limit = self._limit(timeout, target.name)
        deadline = time.monotonic() + limit
        outgoing = Outgoing(target, delay)
        batch = _Batch()
        sent = chunks = 0
        step = min(_CHUNK, max(self.options.max_in_flight // 2, 1))
        while sent < len(messages):
            chunk = messages[sent : sent + step]
            try:
                # Once begun it waits for slots, also with on_full="raise": those it waits for are its own.
                wait = bool(sent) or self.options.on_full == "block"
                self._acquire(len(chunk), deadline - time.monotonic(), target.name, wait)
                self._send_chunk(chunk, now, outgoing, _Chunk(sent, len(chunk), batch, self._release))
            except MessagingError as error:
                if not sent:
                    raise
                batch.failures.update(dict.fromkeys(range(sent, len(messages)), error))
                break
            sent += len(chunk)
            chunks += 1
        if not batch.wait(chunks, deadline + (_GRACE if timeout is None else 0.0)):
            raise PublishTimeout(
                f"publish to {target.name!r}: {len(messages)} messages not all confirmed within {limit:g} s; "
                f"any of them may or may not be stored"
            )
        if batch.failures:
            first = batch.failures[min(batch.failures)]
            raise BatchPublishFailed(
                f"publish to {target.name!r}: {len(batch.failures)} of {len(messages)} messages failed, the first "
                f"with: {first}",
                batch.failures,
            )
        return [item.id if isinstance(item, Message) else item[1] for item in messages]

    def flush(self, timeout: float | None = None) -> None:
        """Waits until every publish so far is confirmed or failed. Raises PublishTimeout at the deadline (seconds)."""
        limit = self.options.timeout if timeout is None else timeout
        with self._slots:
            if not self._slots.wait_for(lambda: not self._in_flight and not self._reporting, min(limit, _LONGEST)):
                raise PublishTimeout(f"flush: {self._in_flight} messages not confirmed within {limit:g} s")

    @property
    def in_flight(self) -> int:
        """Messages handed over and not yet confirmed or failed."""
        return self._in_flight

    @property
    def waits(self) -> Mapping[str, int]:
        """How often it began to wait, by reason (`messaging.waits.Reason`): counters, for a metric."""
        return self._waits.counts

    @property
    def waited_seconds(self) -> Mapping[str, float]:
        """How long it waited, by reason, up to now: counters, for a metric."""
        return self._waits.seconds

    @property
    def waiting(self) -> frozenset[str]:
        """The reasons for which it waits now."""
        return self._waits.open

    @property
    def closed(self) -> bool:
        return self._closed

    def abandon(self) -> None:
        """In a forked child: nothing of this works here, and a lock may be held by a thread that does not exist."""
        self._closed = True
        self._slots = Condition()
        self._waits = Waits()
        self._in_flight = self._reporting = 0
        self._line.clear()

    def close(self, timeout: float | None = None) -> None:
        """Flushes and stops. What is not confirmed by the deadline fails with PublishTimeout. Idempotent."""
        with self._slots:
            if self._closed:
                return
            self._closed = True
            self._slots.notify_all()
        try:
            self._sender.close(self.options.timeout if timeout is None else timeout)
        finally:
            self._waits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _publish(
        self,
        destination: str | Destination,
        value: Any,
        delay: float,
        mandatory: bool,
        timeout: float,
        fields: MessageFields,
    ) -> Future[str]:
        target = self._check(destination, delay, mandatory)
        message = self._message(value, fields)
        self._prepare(message, target)
        self._acquire(1, timeout, target.name, self.options.on_full == "block")
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()  # what is sent cannot be taken back, so it cannot be cancelled either
        self._send([message], Outgoing(target, delay, mandatory), partial(self._publish_done, future, message.id))
        return future

    def _message(self, value: Any, fields: MessageFields) -> Message:
        if not isinstance(value, Message):
            return Message.of(value, **fields)
        if fields:
            raise InvalidMessage(f"a Message carries its own fields: {', '.join(fields)} cannot be given beside it")
        return _own(value)

    def _check(self, destination: str | Destination, delay: float, mandatory: bool) -> Destination:
        if self._closed:
            raise Closed(f"publish to {_name(destination)!r}: the producer is closed")
        target = self._resolve(destination)
        topic = isinstance(target, Topic)
        able, broker = self._driver.capabilities, self._driver.name
        if delay:
            self._check_delay(able, delay, topic, target.name)
        if mandatory and topic:
            able.require("mandatory", broker)
        return target

    def _check_delay(self, able: Capabilities, delay: float, topic: bool, name: str) -> None:
        if not 0 <= delay < float("inf"):
            raise InvalidMessage(f"publish to {name!r}: delay must be seconds from 0 on, not {delay!r}")
        able.require("delayed_topic" if topic else "delayed_queue", self._driver.name)
        if able.max_delay is not None and delay > able.max_delay:
            raise UnsupportedCapability(
                f"publish to {name!r}: {self._driver.name} delays by at most {able.max_delay:g} s, not {delay:g}"
            )

    def _prepare_many(self, items: Iterable[Any], target: Destination, now: float) -> list[_Prepared]:
        """Everything that is to be published, complete and checked. Of a value only the body has to be looked at."""
        next_id, surely_fits = self._next_id, self._driver.surely_fits
        prepared: list[_Prepared] = []
        for item in items:
            if isinstance(item, Message) or target.ordered:
                message = _own(item) if isinstance(item, Message) else Message.of(item)
                self._prepare(message, target)
                prepared.append(message)
            else:
                body, content_type = encode(item)
                value = (body, next_id(), content_type)
                if len(body) > surely_fits:
                    self._driver.check(plain_message(value, now), target)
                prepared.append(value)
        return prepared

    def _prepare(self, message: Message, target: Destination) -> None:
        if not message.id:
            message.id = self._next_id()
        if not message.timestamp:
            message.timestamp = time.time()
        if target.ordered and not message.key:
            raise InvalidMessage(f"publish to {target.name!r}: it is ordered, so each message needs a key")
        check_message(message, target.name)
        self._driver.check(message, target)

    def _limit(self, timeout: float | None, name: str) -> float:
        limit = self.options.timeout if timeout is None else timeout
        if not limit > 0:
            raise PublishTimeout(f"publish to {name!r}: the deadline had passed already; nothing was sent")
        return min(limit, _LONGEST)

    def _acquire(self, count: int, timeout: float, name: str, wait: bool) -> None:
        most = self.options.max_in_flight
        with self._slots:
            if not self._line and (not self._in_flight or self._in_flight + count <= most):
                self._take_slots(count, name)
                return
            if not wait:
                raise ProducerFull(
                    f"publish to {name!r}: {self._in_flight} messages await confirmation (max_in_flight={most})"
                )
            ticket = object()
            self._line.append(ticket)
        # Told without the lock, since what is told may ask this producer something; the place in the line is kept.
        try:
            with self._waits.during("in-flight", f"max_in_flight={most}"):
                self._wait_in_line(ticket, count, timeout, name)
        except BaseException:
            self._give_up(ticket, count)
            raise

    def _take_slots(self, count: int, name: str) -> None:
        if self._closed:
            raise Closed(f"publish to {name!r}: the producer is closed; nothing was sent")
        self._in_flight += count

    def _wait_in_line(self, ticket: object, count: int, timeout: float, name: str) -> None:
        most, line = self.options.max_in_flight, self._line
        with self._slots:
            if not self._slots.wait_for(
                lambda: self._closed or (line[0] is ticket and self._in_flight + count <= most), timeout
            ):
                raise PublishTimeout(
                    f"publish to {name!r}: {self._in_flight} messages still await confirmation after "
                    f"{timeout:g} s (max_in_flight={most}); nothing was sent"
                )
            self._take_slots(count, name)
            line.remove(ticket)
            self._slots.notify_all()

    def _give_up(self, ticket: object, count: int) -> None:
        with self._slots:
            if ticket in self._line:
                self._line.remove(ticket)
            else:
                self._in_flight -= count
            self._slots.notify_all()

    def _send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        try:
            self._sender.send(messages, outgoing, done)
        except BaseException:
            self._release(len(messages))
            raise

    def _send_chunk(self, chunk: Sequence[_Prepared], now: float, outgoing: Outgoing, done: Done) -> None:
        values = [item for item in chunk if not isinstance(item, Message)]
        if len(values) < len(chunk):
            messages = [item if isinstance(item, Message) else plain_message(item, now) for item in chunk]
            self._send(messages, outgoing, done)
            return
        try:
            self._sender.send_values(values, now, outgoing, done)
        except BaseException:
            self._release(len(chunk))
            raise

    def _publish_done(self, future: Future[str], id: str, _index: int, error: MessagingError | None) -> None:
        # The slot first: what runs when the future is done may publish again.
        with self._slots:
            self._in_flight -= 1
            self._reporting += 1
            self._slots.notify_all()
        if error is None:
            future.set_result(id)
        else:
            future.set_exception(error)
        with self._slots:
            self._reporting -= 1
            self._slots.notify_all()

    def _release(self, count: int) -> None:
        with self._slots:
            self._in_flight -= count
            self._slots.notify_all()


_Prepared = Message | PlainValue


class _Chunk:
    """The outcomes of one `send` of a `publish_many`. Called by one driver thread at a time.

    Slots are given back in lots: a lock a message would cost more than the message.
    """

    __slots__ = ("_errors", "_finished", "_first", "_lot", "_pending", "_release")

    def __init__(self, first: int, size: int, batch: _Batch, release: Callable[[int], None]) -> None:
        self._first = first
        self._pending = size
        self._lot = 0
        self._errors = batch.failures
        self._finished = batch.finished
        self._release = release

    def __call__(self, index: int, error: MessagingError | None) -> None:
        if error is not None:
            self._errors[self._first + index] = error
        self._pending -= 1
        self._lot += 1
        if self._lot == _LOT or not self._pending:
            self._release(self._lot)
            self._lot = 0
            if not self._pending:
                self._finished.release()


class _Batch:
    """What a `publish_many` waits for: each chunk releases `finished` once."""

    def __init__(self) -> None:
        self.failures: dict[int, MessagingError] = {}
        self.finished = Semaphore(0)

    def wait(self, chunks: int, deadline: float) -> bool:
        return all(self.finished.acquire(timeout=max(deadline - time.monotonic(), 0)) for _ in range(chunks))


_living: weakref.WeakSet[Producer] = weakref.WeakSet()


def _flush_at_exit() -> None:
    """Who ends without closing loses nothing that `publish_nowait` took: the threads that send it are still alive."""
    for producer in list(_living):
        if producer.in_flight and not producer.closed:
            try:
                producer.flush()
            except PublishTimeout as error:
                log.error("at exit, without close: %s", error)


atexit.register(_flush_at_exit)


def _name(destination: str | Destination) -> str:
    return destination if isinstance(destination, str) else destination.name


def _own(message: Message) -> Message:
    """The caller's message, or a copy to complete: published again, it gets another id and time."""
    return message if message.id and message.timestamp else replace(message)
