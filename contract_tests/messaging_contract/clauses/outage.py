"""What clauses about lost connections and outages share: a publisher that goes on, and how long recovery takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from messaging import Broker, BrokerUnavailable, Consumer, PublishTimeout
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.ledger import Ledger


def recovery(bench: Bench) -> float:
    """Seconds within which a client has to have recovered once the broker is there again."""
    return 2 * bench.patience


def short_leases(bench: Bench) -> dict[str, Any]:
    """Consumer options with which what a lost connection held comes back soon."""
    return {"lease": 2.0} if bench.able.lease else {}


CONNECT_TIMEOUT = 5.0


class Publishing:
    """A thread that publishes one message after another, whatever happens, until `stop`; the ledger keeps account."""

    def __init__(self, broker: Broker, source: Source, ledger: Ledger) -> None:
        self._broker, self._source, self._ledger = broker, source, ledger
        self._ending = Event()
        self.unexpected: list[BaseException] = []
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ending.wait(0.01):
            number += 1
            try:
                message = self._ledger.message(key=f"k{number % 7}")
                self._ledger.publish_one(self._broker, self._source.destination, message, timeout=10)
            except (PublishTimeout, BrokerUnavailable):
                continue
            except BaseException as error:
                self.unexpected.append(error)
                return

    def stop(self) -> None:
        """Ends it; asserts that nothing was raised but what an outage explains."""
        self._ending.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a publish hangs"
        assert not self.unexpected, f"a publish during an outage raised {self.unexpected[0]!r}"


@contextmanager
def publishing(broker: Broker, source: Source, ledger: Ledger) -> Iterator[None]:
    publishing = Publishing(broker, source, ledger)
    try:
        yield
    finally:
        publishing.stop()


def progress(bench: Bench, ledger: Ledger, more: int, timeout: float | None = None) -> None:
    """Waits until that many more messages are confirmed."""
    goal = len(ledger.confirmed) + more
    bench.eventually(
        lambda: len(ledger.confirmed) >= goal, f"{more} more messages to be confirmed", timeout or recovery(bench)
    )


def pings(broker: Broker) -> bool:
    try:
        broker.ping()
    except BrokerUnavailable:
        return False
    return True


def drained(bench: Bench, source: Source, consumer: Consumer, ledger: Ledger) -> bool:
    consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.2)))
    return bench.depth(source) == 0
