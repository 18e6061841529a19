"""The threads of a soak: publishers that go on whatever happens, and consumers that come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from random import Random
from threading import Event, Lock, Thread
from typing import Any

from messaging import Broker, Consumer, Delivery, Message
from messaging.errors import BatchPublishFailed, Closed, MessagingError, SettleFailed
from messaging.topology import Destination, Source
from messaging_contract.faults import ChildProcess
from messaging_contract.soak.accounts import Published, Received

_PADDING = b" " + b"." * 100
_BREATH = 0.05
"""Seconds before the next try when one failed."""

_NACKED = 0.01
"""The share of the deliveries that is given back instead of handled."""


class Errors:
    """What was raised, by type and text, and what should never be. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.seen: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.defects: list[str] = []
        """Errors that are not of this library's tree, processes that died by themselves, threads that hang."""

    def add(self, what: str, error: BaseException) -> None:
        name = f"{what}: {type(error).__name__}"
        with self._lock:
            self.seen[name] += 1
            self.examples.setdefault(name, str(error))
            if not isinstance(error, MessagingError) and len(self.defects) < 20:
                self.defects.append(f"{name}: {error}")

    def defect(self, text: str) -> None:
        with self._lock:
            self.defects.append(text)


def body_of(number: int) -> bytes:
    return b"%d" % number + _PADDING


def number_of(delivery: Delivery) -> int:
    """The number of a message as `body_of` made it; -1 when the body is another."""
    body = delivery.body
    digits = body.partition(b" ")[0]
    if not digits.isdigit() or body != digits + _PADDING:
        return -1
    return int(digits)


class Publisher(Thread):
    """One producer of a destination, in batches (`publish_many`) or one by one (`publish_nowait`), until `ending`."""

    def __init__(
        self,
        broker: Broker,
        destination: Destination,
        published: Published,
        number: int,
        wait: Callable[[], bool],
        ending: Event,
        errors: Errors,
    ) -> None:
        super().__init__(name=f"soak-publisher-{destination.name}-{number}", daemon=True)
        self._producer = broker.producer(timeout=30)
        self._destination = destination
        self._published = published
        self._number = number
        self._wait = wait
        self._ending = ending
        self._errors = errors
        self._one_by_one = number % 2 == 1

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                if self._wait():
                    self._ending.wait(_BREATH)
                    continue
                numbers = self._published.attempt(self._number, 100)
                if self._one_by_one:
                    self._publish_each(numbers)
                else:
                    self._publish_batch(numbers)
            self._producer.close(60)
        except BaseException as error:
            self._errors.add("a publisher ended", error)
            self._errors.defect(f"{self.name} ended with {type(error).__name__}: {error}")

    def _message(self, number: int) -> Message:
        return Message.of(body_of(number), key=f"k{self._published.key(number)}")

    def _publish_batch(self, numbers: Sequence[int]) -> None:
        try:
            self._producer.publish_many(self._destination, [self._message(number) for number in numbers])
        except BatchPublishFailed as failed:
            self._published.confirm(n for index, n in enumerate(numbers) if index not in failed.failures)
            for index, error in failed.failures.items():
                self._fail(numbers[index], error)
            self._ending.wait(_BREATH)
        except MessagingError as error:
            for number in numbers:
                self._fail(number, error)
            self._ending.wait(_BREATH)
        else:
            self._published.confirm(numbers)

    def _publish_each(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            try:
                future = self._producer.publish_nowait(self._destination, self._message(number))
            except MessagingError as error:
                self._fail(number, error)
                self._ending.wait(_BREATH)
            else:
                future.add_done_callback(partial(self._done, number))

    def _done(self, number: int, future: Future[str]) -> None:
        error = future.exception()
        if error is None:
            self._published.confirm([number])
        else:
            self._fail(number, error)

    def _fail(self, number: int, error: BaseException) -> None:
        self._published.fail(number, isinstance(error, MessagingError) and not error.retryable)
        self._errors.add("publish", error)


class Member(Thread):
    """One consumer of a source, opened again whenever it was closed or failed, until `ending`.

    At least once: a delivery is recorded, then acked. One in a hundred is given back instead.
    """

    def __init__(
        self, broker: Broker, source: Source, received: Received, lease: float | None, ending: Event, errors: Errors
    ) -> None:
        super().__init__(name=f"soak-consumer-{source.name}", daemon=True)
        self._broker = broker
        self._source = source
        self._received = received
        self._options: dict[str, Any] = {} if lease is None else {"lease": lease}
        self._ending = ending
        self._errors = errors
        self._leaving = Event()
        self._random = Random(self._source.name)

    def leave(self) -> None:
        """Closes its consumer, and opens another."""
        self._leaving.set()

    def run(self) -> None:
        while not self._ending.is_set():
            self._leaving.clear()
            try:
                group = self._source.group
                with self._broker.subscribe(self._source.destination, group, **self._options) as consumer:
                    while not self._ending.is_set() and not self._leaving.is_set():
                        self._consume(consumer)
            except Closed:
                if self._broker.closed:
                    return
            except BaseException as error:
                self._errors.add("consume", error)
                self._ending.wait(10 * _BREATH)

    def _consume(self, consumer: Consumer) -> None:
        try:
            deliveries = consumer.receive(200, 0.3)
            handled = []
            for delivery in deliveries:
                if self._random.random() < _NACKED:
                    self._give_back(delivery)
                else:
                    handled.append(delivery)
            self._received.record(map(number_of, handled))
            consumer.ack(handled)
        except SettleFailed as error:  # told once for each: it comes again
            self._errors.add("settle", error)

    def _give_back(self, delivery: Delivery) -> None:
        """One that cannot be given back keeps none of its batch from being handled."""
        try:
            delivery.nack()
        except SettleFailed as error:
            self._errors.add("settle", error)


class ChildMember(Thread):
    """A consumer in a process of its own, started again whenever it was killed, until `ending`."""

    def __init__(self, url: str, name: str, received: Received, ending: Event, errors: Errors) -> None:
        super().__init__(name=f"soak-process-{name}", daemon=True)
        self._arguments = ["-m", "messaging_contract.soak.member", url, name]
        self._received = received
        self._ending = ending
        self._errors = errors
        self._lock = Lock()
        self._process: ChildProcess | None = None
        self._killed = False

    def leave(self) -> None:
        """Kills the process; another is started."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def run(self) -> None:
        failures = 0
        while not self._ending.is_set() and failures < 3:
            with self._lock:
                self._killed = False
                self._process = process = ChildProcess(self._arguments)
            with process:
                self._read(process)
            if not self._killed and not self._ending.is_set():
                failures += 1
                self._errors.defect(f"a consumer's process ended by itself: {process.errors[-2000:]}")

    def _read(self, process: ChildProcess) -> None:
        while True:
            try:
                line = process.line(0.3)
            except TimeoutError:
                if self._ending.is_set():
                    return
                continue
            if line is None:
                return
            self._received.record(map(int, line.split()))


def join(threads: Iterable[Thread], seconds: float, errors: Errors) -> None:
    """Waits for each, and counts one that hangs as a defect."""
    for thread in threads:
        thread.join(seconds)
        if thread.is_alive():
            errors.defect(f"{thread.name} hangs: not ended after {seconds:g} s")
