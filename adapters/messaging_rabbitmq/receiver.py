"""Consuming: pushed deliveries, coalesced acks, and a consumer that comes back after whatever ended it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from struct import Struct
from threading import Event
from typing import Any

from pika import exceptions
from pika.channel import Channel

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery
from messaging.driver import Receiver
from messaging.errors import BrokerUnavailable, Closed, MessagingError, UnsupportedCapability
from messaging.options import ConsumerOptions
from messaging.rejection import Rejection
from messaging.topology import Source
from messaging_rabbitmq import wire
from messaging_rabbitmq.acks import TagWindow
from messaging_rabbitmq.connection import FrameHandler
from messaging_rabbitmq.copies import Copies
from messaging_rabbitmq.delivery import RabbitMQDelivery
from messaging_rabbitmq.failures import NOT_FOUND, REFUSED, channel_failure
from messaging_rabbitmq.flow import Steps
from messaging_rabbitmq.link import Link, LinkUser
from messaging_rabbitmq.parts import check_nack
from messaging_rabbitmq.topology import depth

log = logging.getLogger(__name__)

_method_id = Struct(">I").unpack_from
_body_size = Struct(">Q").unpack_from
_tag = Struct(">Q?").unpack_from
_REOPEN_SECONDS = 0.5
_CLOSE_SECONDS = 8.0

_ORDERED_PREFETCH = 200
"""Messages of an ordered source taken at a time, whatever the consumer's prefetch. RabbitMQ puts what comes back behind
what came back before: a consumer that takes a part of that only, and gives it back, puts it behind the rest."""


class RabbitMQReceiver(LinkUser, FrameHandler, Receiver):
    """One channel with one consumer.

    The consumer's thread takes from `_buffer`; settlements go the other way through `_acked`, `_requeued` and
    `_parked`, deques whose appends and pops are atomic, with at most one wake-up outstanding. The link's I/O thread
    owns all other fields. `_epoch` counts channels: a settlement of an earlier one is dropped, since its message is
    delivered again anyway. `_owed` is prefetch that no consumer has got yet, because deliveries up to `_mark` use it.
    """

    def __init__(
        self,
        link: Link,
        source: Source,
        options: ConsumerOptions,
        copies: Copies,
        restore: Callable[[], Steps],
        on_closed: Callable[[RabbitMQReceiver], None],
    ) -> None:
        self.source = source
        self._link = link
        self._prefetch = _ORDERED_PREFETCH if source.ordered else min(options.prefetch, 65535)
        self._copies = copies
        self._restore = restore
        self._on_closed = on_closed
        self._buffer = DeliveryBuffer()
        self._acked: deque[RabbitMQDelivery] = deque()
        self._requeued: deque[RabbitMQDelivery] = deque()
        self._parked: deque[RabbitMQDelivery] = deque()
        self._woken = False
        self._closed = False
        self._dead: MessagingError | None = None
        self._consuming: Future[None] = Future()
        self._channel: Channel | None = None
        self._consumers: list[str] = []
        self._cancelling = 0
        self._owed = 0
        self._mark = 0
        self._paused = False
        self._held: list[Delivery] = []
        self._epoch = 0
        self._window = TagWindow()
        self._fresh: list[Delivery] = []
        self._tag = 0
        self._redelivered = False
        self._where = b""
        self._properties = b""
        self._missing = -1
        self._body: list[bytes] = []
        self._syncs: list[Future[None]] = []

    def open(self, timeout: float) -> None:
        """Consumes when this returns. Raises DestinationNotFound, BrokerUnavailable, AuthenticationFailed."""
        self._link.submit(lambda: self._link.join(self))
        try:
            self._consuming.result(timeout)
        except TimeoutError as error:
            self.close()
            raise BrokerUnavailable(f"consume from {self.source}: no answer within {timeout:g} seconds") from error
        except MessagingError:
            self.close()
            raise

    # -- any thread

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        if self._closed:
            raise Closed(f"receive from {self.source}: the consumer is closed")
        dead = self._dead
        if dead is not None and not len(self._buffer):
            raise dead
        return self._buffer.take(max_messages, timeout)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._check_open()
        self._acked.extend(deliveries)  # type: ignore[arg-type]
        self._wake()

    def check_delay(self, delay: float) -> None:
        check_nack(self.source, delay, self._link.options.consumer_timeout)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self._check_open()
        self.check_delay(delay)
        if delay > 0 or self._copies.even_without_delay:
            self._copies.retry(self._current(deliveries), delay)
        else:
            self._requeued.extend(deliveries)  # type: ignore[arg-type]
            self._wake()

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self._check_open()
        current = self._current(deliveries)
        if self.source.dead_letter is None:
            for delivery in current:
                log.warning("%s: message %s was rejected (%s) and is discarded", self.source, delivery.id, why.reason)
            self.ack(current)
        else:
            self._copies.dead_letter(current, why)

    def extend(self, delivery: Delivery, seconds: float) -> None:
        raise UnsupportedCapability(
            "rabbitmq has no leases to extend: a message is the consumer's until its connection ends, or until the "
            "broker's consumer_timeout (30 minutes by default)"
        )

    def pause(self) -> None:
        self._link.submit(self._pause)

    def resume(self) -> None:
        self._link.submit(self._resume)

    def lag(self) -> int:
        try:
            self._sync(self._link.options.connect_timeout)
        except BrokerUnavailable:
            pass
        timeout = self._link.options.connect_timeout
        ready: int = self._link.run(depth(self.source.name), f"look at {self.source}", timeout)
        return ready + self._window.unsettled

    def is_live(self, delivery: Delivery) -> bool:
        return isinstance(delivery, RabbitMQDelivery) and delivery.epoch == self._epoch

    def flush(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not self._copies.wait(timeout):
            raise BrokerUnavailable(f"{self.source}: settlements were not carried out within {timeout:g} seconds")
        self._buffer.check()
        self._sync(max(deadline - time.monotonic(), 0.01))

    def close(self) -> None:
        self.close_within(_CLOSE_SECONDS)

    def close_within(self, seconds: float) -> None:
        """`close`, bounded by this."""
        if self._closed:
            return
        self._closed = True
        self._buffer.close()
        deadline = time.monotonic() + seconds
        if self._link.alive():
            if self._link.up:
                self._copies.wait(seconds / 2)
            ended = Event()
            self._link.submit(lambda: self._end(ended))
            ended.wait(deadline - time.monotonic())
        self._on_closed(self)

    def settled_copy(self, delivery: RabbitMQDelivery) -> None:
        """A copy of `delivery` is safely elsewhere."""
        self._acked.append(delivery)
        self._wake()

    def failed_copy(self, delivery: RabbitMQDelivery, error: MessagingError) -> None:
        """No copy could be made: the original goes back, and the consumer is told."""
        self._buffer.fail(error)
        self._requeued.append(delivery)
        self._wake()

    def park(self, delivery: RabbitMQDelivery) -> None:
        """No copy can be made of what another program sent: RabbitMQ dead-letters the original."""
        self._parked.append(delivery)
        self._wake()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"settle in {self.source}: the consumer is closed, the message is delivered again")

    def _current(self, deliveries: Sequence[Delivery]) -> list[RabbitMQDelivery]:
        return [d for d in deliveries if isinstance(d, RabbitMQDelivery) and d.epoch == self._epoch]

    def _wake(self) -> None:
        # Cleared by `_settle` before it empties the deques, so nothing is left behind.
        if not self._woken:
            self._woken = True
            self._link.submit(self._settle)

    def _sync(self, timeout: float) -> None:
        """Waits until the broker's channel has worked through everything sent before: it answers in order."""
        done: Future[None] = Future()
        self._link.submit(lambda: self._ask(done))
        try:
            done.result(timeout)
        except TimeoutError as error:
            raise BrokerUnavailable(f"{self.source}: no answer from RabbitMQ within {timeout:g} seconds") from error

    # -- the I/O thread

    def link_up(self) -> None:
        self._open()

    def link_down(self, error: MessagingError | None) -> None:
        self._lose_channel()
        if error is not None:
            self._buffer.fail(error)

    def frame(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        if kind == wire.BODY:
            if self._missing <= 0:
                return False
            size = stop - start
            if size == self._missing and not self._body:
                self._complete(data[start:stop])
                return True
            self._body.append(data[start:stop])
            self._missing -= size
            if self._missing <= 0:
                self._complete(b"".join(self._body))
            return True
        if kind == wire.HEADER:
            if not self._tag:
                return False
            self._properties = data[start + 12 : stop]
            self._missing = _body_size(data, start + 4)[0]
            if not self._missing:
                self._complete(b"")
            return True
        if kind == wire.METHOD and _method_id(data, start)[0] == wire.DELIVER:
            at = start + 5 + data[start + 4]
            self._tag, self._redelivered = _tag(data, at)
            self._where = data[at + 9 : stop]
            return True
        return False

    def _complete(self, body: bytes) -> None:
        tag = self._tag
        self._fresh.append(
            RabbitMQDelivery(
                self, self.source, self._epoch, tag, self._redelivered, self._where, self._properties, body
            )
        )
        self._window.delivered(tag)
        self._tag = 0
        self._missing = -1
        if self._body:
            self._body = []

    def frames_end(self) -> None:
        fresh = self._fresh
        if fresh:
            self._fresh = []
            if self._paused and self.source.ordered:
                self._held += fresh
            else:
                self._buffer.put(fresh)

    def _open(self) -> None:
        connection = self._link.connection
        if self._closed or self._channel is not None or connection is None or not self._link.up:
            return
        self._channel = connection.open_channel(self._on_open, self._on_channel_closed)

    def _on_open(self, channel: Channel) -> None:
        self._window = TagWindow()
        self._link.connection.handlers[channel.channel_number] = self  # type: ignore[union-attr]
        channel.add_on_cancel_callback(self._on_cancelled)
        if not self._paused or self.source.ordered:
            self._consume()

    def _consume(self) -> None:
        """Starts a consumer, unless there is one.

        RabbitMQ counts a prefetch for each consumer anew. After a pause, what is still unsettled of the consumer
        before is therefore left out of this one's, and given to a second one when it is settled.
        """
        if not (self._consumers or self._owed or self._cancelling):
            self._owed, self._mark = self._prefetch, self._window.last
            self._take_owed()

    def _take_owed(self) -> None:
        channel = self._channel
        before = self._window.unsettled_up_to(self._mark)
        free = self._owed - before
        if channel is None or not channel.is_open or free < 1 or (before and self._consumers):
            return
        self._owed = before
        channel.basic_qos(prefetch_count=free)
        self._consumers.append(
            channel.basic_consume(self.source.name, lambda *_arguments: None, callback=self._on_consuming)
        )

    def _on_consuming(self, _frame: Any) -> None:
        self._dead = None
        if not self._consuming.done():
            self._consuming.set_result(None)

    def _on_cancelled(self, _frame: Any) -> None:
        log.warning("%s: RabbitMQ cancelled the consumer; its queue was deleted or moved", self.source)
        # The channel goes too: unsettled deliveries of a deleted queue mean nothing any more.
        self._lose_channel()
        self._link.soon(self._revive)

    def _on_channel_closed(self, channel: Channel, reason: BaseException) -> None:
        if channel is not self._channel:
            return
        self._lose_channel()
        if not self._link.up or self._closed:
            return
        code = reason.reply_code if isinstance(reason, exceptions.ChannelClosedByBroker) else 0
        if code == NOT_FOUND:
            self._link.soon(self._revive)
        elif code == REFUSED or (code and not self._consuming.done()):
            self._die(channel_failure(reason, f"consume from {self.source}"))
        else:
            log.warning("%s: RabbitMQ closed the channel (%s); consuming again", self.source, reason)
            self._link.later(_REOPEN_SECONDS, self._open)

    def _revive(self) -> None:
        """The queue may be gone: one of ours is declared again, anybody else's is missed."""
        if self._closed or not self._link.up:
            return
        steps = self._restore() if self._consuming.done() else depth(self.source.name)
        self._link.spawn(steps, self._on_restored)

    def _on_restored(self, _result: Any, error: BaseException | None) -> None:
        if isinstance(error, MessagingError) and not error.retryable:
            self._die(error)
        elif error is not None:
            self._link.later(_REOPEN_SECONDS, self._open)
        else:
            self._open()

    def _die(self, error: MessagingError) -> None:
        self._dead = error
        if not self._consuming.done():
            self._consuming.set_exception(error)
        else:
            self._buffer.fail(error)

    def _lose_channel(self) -> None:
        """From here on nothing that was delivered before may be settled; what nobody took yet is dropped."""
        channel, self._channel = self._channel, None
        self._link.let_go(channel)
        self._consumers = []
        self._cancelling = self._owed = 0
        self._epoch += 1
        self._tag = 0
        self._missing = -1
        self._body = []
        self._fresh = []
        self._held = []
        self._window = TagWindow()
        epoch = self._epoch
        self._buffer.remove(lambda delivery: delivery.epoch != epoch)  # type: ignore[attr-defined]
        syncs, self._syncs = self._syncs, []
        for sync in syncs:
            sync.set_exception(BrokerUnavailable(f"{self.source}: the connection was lost, messages come again"))

    def _settle(self) -> None:
        self._woken = False
        epoch, window, channel = self._epoch, self._window, self._channel
        number = 0 if channel is None else channel.channel_number
        frames: list[bytes] = []
        acked = self._acked
        if acked:
            tags = []
            while acked:
                delivery = acked.popleft()
                if delivery.epoch == epoch:
                    tags.append(delivery.tag)
            frames += [wire.settle_frame(number, tag, multiple) for tag, multiple in window.ack(tags)]
        for rejected, requeue in ((self._requeued, True), (self._parked, False)):
            while rejected:
                delivery = rejected.popleft()
                if delivery.epoch == epoch and window.settle(delivery.tag):
                    frames.append(wire.reject_frame(number, delivery.tag, requeue))
        connection = self._link.connection
        if frames and channel is not None and channel.is_open and connection is not None:
            connection.write(frames)
        if self._owed:
            self._take_owed()

    def _ask(self, done: Future[None]) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            done.set_exception(BrokerUnavailable(f"{self.source}: not connected, unsettled messages come again"))
            return
        self._settle()
        self._syncs.append(done)
        channel.basic_qos(prefetch_count=self._prefetch, callback=lambda _frame: self._answer(done))

    def _answer(self, done: Future[None]) -> None:
        if done in self._syncs:
            self._syncs.remove(done)
            done.set_result(None)

    def _pause(self) -> None:
        self._paused = True
        channel = self._channel
        # A cancelled single active consumer hands over to the next one while its deliveries are still open, which
        # would break the order of their keys: an ordered source stays active and holds what comes, up to prefetch.
        if self.source.ordered or channel is None or not channel.is_open:
            return
        self._owed = 0
        consumers, self._consumers = self._consumers, []
        self._cancelling += len(consumers)
        for consumer in consumers:
            channel.basic_cancel(consumer, callback=partial(self._on_paused, channel))

    def _on_paused(self, channel: Channel, _frame: Any) -> None:
        if channel is self._channel:
            self._cancelling -= 1
            # Only now is it known what the cancelled consumer left unsettled.
            if not self._paused:
                self._consume()

    def _resume(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        if held:
            self._buffer.put(held)
        self._consume()

    def _end(self, ended: Event) -> None:
        self._link.leave(self)
        self._settle()
        channel = self._channel
        if channel is not None:
            channel.add_on_close_callback(lambda _channel, _reason: ended.set())
        self._lose_channel()
        if not self._consuming.done():
            self._consuming.set_exception(Closed(f"consume from {self.source}: closed meanwhile"))
        if channel is None or channel.is_closed:
            ended.set()
