"""Receiving and settling. `receive` fetches on the consumer's thread; a thread of ours settles and keeps leases."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from threading import Condition, Thread
from typing import Any

from messaging.dead_letter import dead_letter_copy
from messaging.delivery import Delivery
from messaging.driver import Receiver
from messaging.errors import BrokerUnavailable, Closed, LeaseLost, MessagingError, SettleFailed
from messaging.options import ConsumerOptions
from messaging.rejection import Rejection
from messaging.topology import Source
from messaging_redis.client import Call, Client
from messaging_redis.wire import RedisDelivery, encode

log = logging.getLogger(__name__)

_BATCH = 200
_TURN = 0.2
"""Seconds to wait for new messages in one go: so long a nack by somebody else, or `close`, may go unnoticed."""
_PAUSE = 0.1
"""Seconds between two attempts while Redis cannot be reached."""
_CLOSE = 4.0
"""Seconds that `close` tries to reach Redis. What it cannot give back comes back when its lease ends."""


class RedisReceiver(Receiver):
    """`_changed` guards everything. Nothing is buffered: what is fetched is returned, so prefetch bounds `_held`."""

    def __init__(self, client: Client, source: Source, options: ConsumerOptions, lease: float) -> None:
        self._client = client
        self._source = source
        self._name = source.name
        self._prefetch = options.prefetch
        self._heartbeat = options.heartbeat
        self._lease = lease
        self._changed = Condition()
        self._held: dict[RedisDelivery, None] = {}
        self._settlements: deque[Call] = deque()
        self._asked = 0
        self._carried_out = 0
        self._errors: deque[MessagingError] = deque()
        self._fetching = False
        self._paused = False
        self._closed = False
        self._thread = Thread(target=self._run, name="messaging-redis-receiver", daemon=True)
        self._thread.start()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        with self._changed:
            self._check_open("receive from")
        while True:
            with self._changed:
                if self._errors:
                    raise self._errors.popleft()
                room = self._room()
                remaining = deadline - time.monotonic()
                if self._closed:
                    return []
                if self._paused or room <= 0:
                    if remaining <= 0:
                        return []
                    self._changed.wait(min(remaining, _TURN))
                    continue
                self._fetching = True
            try:
                found, due, last = self._fetch(min(room, max_messages))
                if found:
                    return [] if self._closed else [*found]
                remaining = min(deadline - time.monotonic(), due, _TURN)
                if remaining > 0:
                    self._client.wait(self._name, last, max(1, int(remaining * 1000)))
            except BrokerUnavailable:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, max(0.0, min(deadline - time.monotonic(), _PAUSE)))
            finally:
                with self._changed:
                    self._fetching = False
                    self._changed.notify_all()
            if time.monotonic() >= deadline:
                return []

    def _fetch(self, most: int) -> tuple[list[RedisDelivery], float, bytes]:
        """What is there, held from now on; seconds until something else is due; the newest id."""
        ends = time.monotonic() + self._lease
        due, last, found = self._client.call("fetch", self._name, most, self._lease)
        deliveries = [RedisDelivery(self, self._source, id, count, flat, ends) for id, count, flat in found]
        with self._changed:
            self._held.update(dict.fromkeys(deliveries))
        return deliveries, due / 1000, last

    def _room(self) -> int:
        """A lease that ran out frees its place: the message comes again, to whoever is there."""
        now = time.monotonic()
        for delivery in [d for d in self._held if d.deadline <= now]:
            del self._held[delivery]
        return self._prefetch - len(self._held)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._settle("ack", [(d, ()) for d in deliveries])

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self._settle("nack", [(d, (delay,)) for d in deliveries])

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        dead_letters = self._source.dead_letter
        if dead_letters is None:
            log.warning("%s has no dead-letter queue: %d messages discarded", self._source, len(deliveries))
            self.ack(deliveries)
            return
        copies = [(d, (dead_letters.name, *encode(dead_letter_copy(d, why)))) for d in deliveries]
        self._settle("reject", copies)

    def extend(self, delivery: Delivery, seconds: float) -> None:
        with self._changed:
            self._check_open("extend on")
        assert isinstance(delivery, RedisDelivery)
        ends = time.monotonic() + seconds
        if not self._client.call("extend", self._name, *delivery.named, seconds, 0):
            self._lose(delivery)
            raise LeaseLost(f"extend on {self._source}: the message is settled or its lease has run out")
        delivery.deadline = ends

    def is_live(self, delivery: Delivery) -> bool:
        assert isinstance(delivery, RedisDelivery)
        return delivery.deadline > time.monotonic()

    def pause(self) -> None:
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def lag(self) -> int:
        total: int = self._client.call("count", self._name)[0]
        return total

    def flush(self, timeout: float) -> None:
        with self._changed:
            goal = self._asked
            if not self._changed.wait_for(lambda: self._carried_out >= goal, timeout):
                raise BrokerUnavailable(f"flush of {self._source}: not carried out within {timeout:g} s")
            if self._errors:
                raise self._errors.popleft()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _check_open(self, doing: str) -> None:
        if self._closed:
            raise Closed(f"{doing} {self._source}: the consumer is closed")

    def _settle(self, script: str, settlements: Sequence[tuple[Delivery, tuple[Any, ...]]]) -> None:
        with self._changed:
            self._check_open(f"{script} on")
            for delivery, arguments in settlements:
                assert isinstance(delivery, RedisDelivery)
                self._held.pop(delivery, None)
                self._settlements.append(Call(script, self._name, (*delivery.named, *arguments)))
            self._asked += len(settlements)
            self._changed.notify_all()

    def _lose(self, delivery: RedisDelivery) -> None:
        with self._changed:
            delivery.deadline = 0.0
            self._held.pop(delivery, None)
            self._changed.notify_all()

    def _run(self) -> None:
        beat = self._lease / 3
        next_beat = time.monotonic() + beat
        while True:
            with self._changed:
                wait = next_beat - time.monotonic() if self._heartbeat else None
                self._changed.wait_for(lambda: self._settlements or self._closed, wait)
                if self._closed:
                    break
                batch = list(islice(self._settlements, _BATCH))
            try:
                self._carry_out(batch)
                if self._heartbeat and time.monotonic() >= next_beat:
                    self._beat()
                    next_beat = time.monotonic() + beat
            except MessagingError as error:
                with self._changed:
                    if not isinstance(error, BrokerUnavailable):  # the heartbeat may not: told once, tried again later
                        self._errors.append(error)
                        next_beat = time.monotonic() + beat
                    self._changed.wait_for(lambda: self._closed, _PAUSE)
        self._finish(time.monotonic() + _CLOSE)

    def _carry_out(self, batch: list[Call]) -> None:
        """Raises BrokerUnavailable: then all of the batch is tried again, and what did happen counts once."""
        if not batch:
            return
        try:
            results = self._client.call_many(batch)
        except BrokerUnavailable:
            raise
        except MessagingError as error:
            results = [error] * len(batch)
        again = [call for call, result in zip(batch, results, strict=True) if isinstance(result, BrokerUnavailable)]
        with self._changed:
            for _ in batch:
                self._settlements.popleft()
            self._settlements.extendleft(reversed(again))
            self._carried_out += len(batch) - len(again)
            for result in results:
                if isinstance(result, MessagingError) and not isinstance(result, BrokerUnavailable):
                    failed = SettleFailed(f"{result}; the message comes again when its lease ends")
                    failed.__cause__ = result
                    self._errors.append(failed)
            self._changed.notify_all()
        if again:
            raise BrokerUnavailable(f"settling on {self._source}: Redis refuses for now")

    def _beat(self) -> None:
        with self._changed:
            held = list(self._held)
        if not held:
            return
        ends = time.monotonic() + self._lease
        kept = self._client.call_many([Call("extend", self._name, (*d.named, self._lease, 1)) for d in held])
        for delivery, result in zip(held, kept, strict=True):
            if result == 1:
                delivery.deadline = max(delivery.deadline, ends)
            elif result == 0:
                self._lose(delivery)

    def _finish(self, deadline: float) -> None:
        """Settles what is left and gives back what is held, until it has worked or the time is over."""
        while True:
            with self._changed:
                # A fetch under way may still bring messages, which would wait for the end of their leases.
                self._changed.wait_for(lambda: not self._fetching, deadline - time.monotonic())
                batch = [*self._settlements]
                held = list(self._held)
            try:
                for start in range(0, len(batch), _BATCH):
                    self._carry_out(batch[start : start + _BATCH])
                if held:
                    self._client.call_many([Call("nack", self._name, (*d.named, 0)) for d in held])
                return
            except MessagingError:
                if time.monotonic() >= deadline:
                    return
                time.sleep(_PAUSE)
