"""Per-key order above any adapter: at most one unsettled delivery of a key, and a nack runs again in its lane."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery
from messaging.driver import Receiver, Replay
from messaging.errors import Closed
from messaging.rejection import Rejection


class OrderedReceiver(Receiver):
    """Wraps the receiver of an ordered source.

    The broker gives messages of a key in order and only to this consumer; here they queue up in one lane a key, and
    the next is handed out once the one before is acked or rejected. `nack` keeps the message at the head of its
    lane: it is delivered again after the delay while other keys go on, and nothing overtakes it. When this consumer
    dies, its unsettled messages are the broker's to deliver again, in order.

    clock: what delays are counted by; that of `inner` when None.

    `_lock` guards the lanes, `_settling`, the heads whose settlement is under way, and `_out`, what is handed out and
    unsettled, which `prefetch` bounds. Threads: as `Receiver`.
    """

    def __init__(self, inner: Receiver, prefetch: int, clock: Callable[[], float] | None = None) -> None:
        self._inner = inner
        self._prefetch = prefetch
        self._lock = Lock()
        self._lanes: dict[str | None, deque[Delivery]] = {}
        self._settling: set[Delivery] = set()
        self._out: set[Delivery] = set()
        self._ready = DeliveryBuffer(clock or inner.now)
        self._closed = False

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + max(timeout, 0)
        while True:
            if ready := self._take(max_messages):
                return ready
            remaining = deadline - time.monotonic()
            # Short turns while lanes are held: a settlement by another thread can free one while the source is silent.
            if fresh := self._inner.receive(self._prefetch, max(min(remaining, 0.02) if self._lanes else remaining, 0)):
                self._enter(fresh)
            elif self._closed or remaining <= 0:
                return []

    def expired(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        return self._inner.expired(deliveries, now)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._settle(deliveries, self._inner.ack)

    def check_delay(self, delay: float) -> None:
        self._inner.check_delay(delay)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self._check_open()
        self.check_delay(delay)
        with self._lock:
            self._out.difference_update(deliveries)
            for delivery in deliveries:
                if self._is_head(delivery):
                    again = self._lanes[delivery.key][0] = delivery.again()
                    self._ready.put_later(again, delay)

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self._settle(deliveries, lambda mine: self._inner.reject(mine, why))

    def extend(self, delivery: Delivery, seconds: float) -> None:
        self._inner.extend(delivery, seconds)

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()

    def lag(self) -> int:
        return self._inner.lag()

    def replay(self, since: Replay) -> None:
        self._inner.replay(since)  # first: when it fails, the lanes hold what is still to be settled
        with self._lock:
            self._lanes.clear()
            self._settling.clear()
            self._out.clear()
        self._ready.remove(lambda _delivery: True)

    def flush(self, timeout: float) -> None:
        self._inner.flush(timeout)

    def close(self) -> None:
        self._closed = True
        self._ready.close()
        self._inner.close()
        with self._lock:
            self._lanes.clear()

    def _take(self, most: int) -> list[Delivery]:
        while (room := min(most, self._room())) > 0 and (ready := self._ready.take(room, 0)):
            live: list[Delivery] = []
            gone: list[Delivery] = []
            for delivery in ready:
                (live if self._inner.is_live(delivery) else gone).append(delivery)
            if gone:
                with self._lock:
                    gone = [d for d in gone if self._is_head(d)]
                self._advance(gone)
            if live:
                with self._lock:
                    self._out.update(live)
                return live
        return []

    def _room(self) -> int:
        with self._lock:
            if len(self._out) >= self._prefetch:  # what somebody else has got meanwhile may never be settled here
                self._out = {delivery for delivery in self._out if self._inner.is_live(delivery)}
            return self._prefetch - len(self._out)

    def _enter(self, deliveries: list[Delivery]) -> None:
        heads = []
        with self._lock:
            for delivery in deliveries:
                delivery.settler = self
                lane = self._lanes.setdefault(delivery.key, deque())
                lane.append(delivery)
                if len(lane) == 1:
                    heads.append(delivery)
        self._ready.put(heads)

    def _settle(self, deliveries: Sequence[Delivery], settle: Callable[[Sequence[Delivery]], None]) -> None:
        """Settles those that still are at the head of their lane; of two threads that try, one does."""
        self._check_open()
        with self._lock:
            mine = [d for d in dict.fromkeys(deliveries) if self._is_head(d)]
            self._settling.update(mine)
            self._out.difference_update(deliveries)
        if not mine:
            return
        try:
            settle(mine)
        except BaseException:
            with self._lock:
                self._settling.difference_update(mine)
            raise
        self._advance(mine)

    def _is_head(self, delivery: Delivery) -> bool:
        lane = self._lanes.get(delivery.key)
        return lane is not None and lane[0] is delivery and delivery not in self._settling

    def _advance(self, deliveries: Sequence[Delivery]) -> None:
        heads = []
        with self._lock:
            self._settling.difference_update(deliveries)
            for delivery in deliveries:
                lane = self._lanes.get(delivery.key)
                if not lane or lane[0] is not delivery:  # a replay came between
                    continue
                lane.popleft()
                if lane:
                    heads.append(lane[0])
                else:
                    del self._lanes[delivery.key]
        self._ready.put(heads)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the consumer is closed: the message is delivered again to another one")
