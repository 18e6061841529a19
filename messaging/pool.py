"""Runs plain handlers on threads: keys in parallel, the messages of one key one after the other."""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import SimpleQueue
from threading import Condition, Thread

from messaging.consumer import Consumer
from messaging.delivery import Delivery
from messaging.errors import Closed, MessagingError, SettleFailed
from messaging.handling import Handling, log

_Lane = deque[Delivery]


class ThreadPool:
    """One thread receives, `concurrency` threads handle; with a concurrency of 1 a single thread does both.

    A lane holds the waiting messages of one key; its head is being handled. `_changed` guards the lanes and the
    counts. The threads belong to this object: `join` waits for them.
    """

    def __init__(self, consumer: Consumer, handling: Handling, concurrency: int, name: str) -> None:
        self._consumer = consumer
        self._handling = handling
        self._concurrency = concurrency
        self._work: SimpleQueue[_Lane | None] = SimpleQueue()
        self._lanes: dict[str, _Lane] = {}
        self._changed = Condition()
        self._running = 0
        self._stopping = False
        self.error: BaseException | None = None
        receive = self._handle_here if concurrency == 1 else self._receive
        self._threads = [Thread(target=self._guard, args=(receive,), name=f"{name}-receive", daemon=True)]
        if concurrency > 1:
            self._threads += [
                Thread(target=self._guard, args=(self._handle,), name=f"{name}-{n}", daemon=True)
                for n in range(concurrency)
            ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No further message is started; those being handled go on. Returns at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for _ in range(self._concurrency):
            self._work.put(None)

    def join(self, timeout: float) -> bool:
        """Waits for handlers being run. False when some still run after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0, timeout)

    def cancel(self) -> None:
        """Threads cannot be cancelled: what still runs is left to finish, and can no longer settle."""

    def finish(self, timeout: float) -> None:
        """Waits for the threads to end, after the consumer was closed; not for handlers that still run."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(max(deadline - time.monotonic(), 0) if self.join(0) else 0)

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _guard(self, body: object) -> None:
        try:
            body()  # type: ignore[operator]
        except Closed:
            self.stop()
        except BaseException as error:
            self.error = self.error or error
            self.stop()

    def _handle_here(self) -> None:
        run, consumer = self._handling.run, self._consumer
        while not self._stopping:
            deliveries = receive(consumer, 100)
            if not deliveries:
                continue
            with self._changed:
                self._running = 1
            try:
                for delivery in deliveries:
                    if self._stopping:
                        break
                    if begin(consumer, delivery):
                        run(delivery)
            finally:
                with self._changed:
                    self._running = 0
                    self._changed.notify_all()

    def _receive(self) -> None:
        # What waits here is leased and counts as unsettled, so the consumer's prefetch bounds it.
        while not self._stopping:
            for delivery in receive(self._consumer, 100):
                self._enter(delivery)

    def _enter(self, delivery: Delivery) -> None:
        key = delivery.key
        if key is None:
            self._work.put(deque((delivery,)))
            return
        with self._changed:
            lane = self._lanes.get(key)
            if lane is not None:
                lane.append(delivery)
                return
            lane = self._lanes[key] = deque((delivery,))
        self._work.put(lane)

    def _handle(self) -> None:
        while (lane := self._work.get()) is not None:
            with self._changed:
                if self._stopping:
                    return
                self._running += 1
            delivery = lane[0]
            try:
                if begin(self._consumer, delivery):
                    self._handling.run(delivery)
            finally:
                with self._changed:
                    self._running -= 1
                    if not self._running:
                        self._changed.notify_all()
            # Not after what a handler may not raise: nothing was settled then, and the next one must not overtake it.
            with self._changed:
                lane.popleft()
                if lane:
                    self._work.put(lane)
                elif delivery.key is not None:
                    del self._lanes[delivery.key]


def receive(consumer: Consumer, most: int) -> list[Delivery]:
    """A batch, or none; a settlement that failed is logged, since its message comes back by itself."""
    try:
        return consumer.take(min(most, consumer.options.prefetch), 0.5)
    except SettleFailed as error:
        log.warning("%s: %s", consumer.source, error)
        return []
    except MessagingError as error:
        if not error.retryable:
            raise
        log.warning("%s: %s", consumer.source, error)
        return []


def begin(consumer: Consumer, delivery: Delivery) -> bool:
    """Settles `delivery` when it is to be handled at most once; False: it could not, and must not be handled."""
    try:
        consumer.begin((delivery,))
    except MessagingError as error:
        log.warning("%r is not handled, because it could not be settled before: %s", delivery, error)
        return False
    return True
