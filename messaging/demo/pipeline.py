"""The program: an order service publishes, inventory, payment and notification each handle every order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Event, Lock, Thread

from messaging.broker import Broker
from messaging.dead_letter import REASON
from messaging.delivery import Delivery
from messaging.demo.ledger import GroupLedger
from messaging.demo.orders import Order
from messaging.demo.plan import GROUPS, POLICY, expected, planned_failure
from messaging.demo.report import GroupProgress, Progress, Report, group_report
from messaging.errors import MessagingError
from messaging.topology import Topic
from messaging.worker import Worker

_NUMBER = "order-number"
_TICK = 0.1
_READ_TIMEOUT = 60.0
"""Seconds until every dead letter that is expected must have been read back. Longer than the 45 seconds that Kafka
keeps partitions for a consumer that is gone."""


def demo_topic() -> Topic:
    """A topic of its own for each run, so that runs never meet."""
    return Topic(f"demo-orders-{uuid.uuid4().hex[:12]}", *GROUPS)


class Pipeline:
    """Runs `orders` through `topic` once. `run` belongs to one thread; it owns two more and joins them.

    `_lock` guards `_published` and `_failure`, which the broker's confirmations write.
    """

    def __init__(self, broker: Broker, topic: Topic, orders: Sequence[Order]) -> None:
        self._broker = broker
        self._topic = topic
        self._orders = orders
        known = frozenset(order.id for order in orders)
        self._ledgers = [GroupLedger(group, known) for group in GROUPS]
        self._lock = Lock()
        self._published: set[str] = set()
        self._failure: BaseException | None = None
        self._stop = Event()

    def run(
        self, show: Callable[[Progress], None], *, stall_timeout: float = 60.0, keep_dead_letters: bool = False
    ) -> Report:
        """Publishes, handles, reads the dead letters back and balances the books.

        show: called about ten times a second from this thread. stall_timeout: seconds without any progress after
        which the rest counts as lost. Raises MessagingError when publishing or consuming failed for good.
        """
        self._broker.declare(self._topic)
        worker = self._worker()
        started = time.monotonic()
        # The groups exist already, so it does not matter which of the two is up first: no order is missed.
        threads = [
            Thread(target=self._guard, args=(worker.run,), name="groups", daemon=True),
            Thread(target=self._guard, args=(self._publish,), name="order-service", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            self._wait(show, stall_timeout)
        finally:
            self._stop.set()
            worker.request_stop()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        show(self.progress())
        return self._report(started, time.monotonic() - started, keep_dead_letters)

    def progress(self) -> Progress:
        """Where the run is. From any thread."""
        groups = [GroupProgress(book.group, *book.counts(), book.retried) for book in self._ledgers]
        return Progress(len(self._orders), len(self._published), groups)

    def _worker(self) -> Worker:
        worker = Worker(self._broker, drain_timeout=10.0)
        for ledger in self._ledgers:
            register = worker.on(self._topic, ledger.group, retry=POLICY, concurrency=4)
            register(partial(self._handle, ledger))
        return worker

    def _handle(self, ledger: GroupLedger, delivery: Delivery) -> None:
        """What a group does with an order: an idempotent consumer, which fails where that is planned."""
        call = ledger.received(delivery.id)
        if not call:
            return
        failure = planned_failure(ledger.group, int(delivery.headers[_NUMBER]), call)
        if failure is not None:
            ledger.failed(delivery.id, POLICY.delay_after(delivery.attempt, failure) is None)
            raise failure
        ledger.handled(delivery.id)

    def _publish(self) -> None:
        with self._broker.producer() as producer:
            for order in self._orders:
                if self._stop.is_set():
                    return
                try:
                    future = producer.publish_nowait(
                        self._topic,
                        order.value,
                        id=order.id,
                        key=order.key,
                        type="order.placed",
                        headers={_NUMBER: str(order.number)},
                    )
                except MessagingError as error:
                    raise _with_origin(error, order) from error
                future.add_done_callback(partial(self._confirmed, order))
            producer.flush()

    def _confirmed(self, order: Order, future: Future[str]) -> None:
        error = future.exception()
        with self._lock:
            if error is None:
                self._published.add(order.id)
            elif self._failure is None:
                self._failure = error

    def _guard(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _wait(self, show: Callable[[Progress], None], stall_timeout: float) -> None:
        last, since = self.progress(), time.monotonic()
        while self._failure is None:
            now = self.progress()
            show(now)
            if now.published == now.orders and all(group.done == now.orders for group in now.groups):
                return
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > stall_timeout:
                return
            self._stop.wait(_TICK)

    def _report(self, started: float, seconds: float, keep: bool) -> Report:
        groups = []
        for ledger in self._ledgers:
            plan = expected(ledger.group, len(self._orders))
            letters, copies = self._dead_letters(ledger, keep)
            groups.append(group_report(ledger, self._published, letters, copies, plan, started))
        return Report(
            self._broker.name, self._topic.name, len(self._orders), len(self._published), round(seconds, 3), groups
        )

    def _dead_letters(self, ledger: GroupLedger, keep: bool) -> tuple[dict[str, str], int]:
        """Reads the group's dead-letter queue to its end: reason by id, and how many messages there were."""
        wanted = ledger.counts()[1]
        if not wanted and not self._broker.dead_letter_depth(self._topic, ledger.group):
            return {}, 0
        found: dict[str, str] = {}
        copies = 0
        deadline = time.monotonic() + _READ_TIMEOUT
        # Kept ones stay unsettled until the consumer closes and gives them back, so all of them must fit.
        with self._broker.dead_letters(self._topic, ledger.group, prefetch=wanted + 100) as consumer:
            while True:
                missing = len(found) < wanted and time.monotonic() < deadline
                deliveries = consumer.receive(100, 1.0 if missing else 0.3)
                for delivery in deliveries:
                    copies += not (keep and delivery.id in found)
                    found[delivery.id] = delivery.headers.get(REASON, "")
                    if not keep:
                        delivery.ack()
                if not deliveries and not missing:
                    return found, copies


def _with_origin(error: MessagingError, order: Order) -> MessagingError:
    if order.origin:
        error.args = (f"{order.origin}: {error}",)
    return error
