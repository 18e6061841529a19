from __future__ import annotations

import threading
import time

import pytest

from messaging.driver import Outgoing, Receiver
from messaging.errors import BrokerUnavailable, MessagingError, PublishTimeout
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Queue, Source
from messaging_contract.faults import TcpProxy
from messaging_rabbitmq import RabbitMQDriver, RabbitMQOptions

from .helpers import eventually, message, opened, publish, take


def through(proxy: TcpProxy) -> dict[str, object]:
    return {"hosts": (("127.0.0.1", proxy.port),)}


def interrupt(proxy: TcpProxy) -> None:
    """Cuts every connection; new ones are possible a moment later."""

    def resumed() -> bool:
        try:
            proxy.resume()
        except OSError:  # its old listener still holds the port
            return False
        return True

    proxy.cut()
    eventually(resumed)


class Ledger:
    """Publishes in a thread and remembers what was confirmed."""

    def __init__(self, driver: RabbitMQDriver, queue: Queue, count: int) -> None:
        self.confirmed: list[str] = []
        self.failed: list[MessagingError] = []
        self._slots = threading.Semaphore(200)
        self._count = count
        self._queue = queue
        self._sender = driver.sender(ProducerOptions(timeout=20))
        self.thread = threading.Thread(target=self._publish)
        self.thread.start()

    def _publish(self) -> None:
        outgoing = Outgoing(self._queue)
        for index in range(self._count):
            self._slots.acquire()
            each = message(b"%d" % index)
            self._sender.send([each], outgoing, lambda _index, error, id_=each.id: self._done(id_, error))
        self._sender.close(25)

    def _done(self, id_: str, error: MessagingError | None) -> None:
        self._slots.release()
        if error is None:
            self.confirmed.append(id_)
        else:
            self.failed.append(error)


def test_cuts_while_publishing_and_consuming_lose_nothing(
    options: RabbitMQOptions, queue: Queue, proxy: TcpProxy
) -> None:
    with opened(options, **through(proxy)) as driver:
        receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=100))
        ledger = Ledger(driver, queue, 3000)
        received: set[str] = set()
        cuts = 0
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and (ledger.thread.is_alive() or received < set(ledger.confirmed)):
            for delivery in receiver.receive(50, 0.2):
                received.add(delivery.id)
                delivery.ack()
            if cuts < 3 and len(received) > 700 * (cuts + 1):
                cuts += 1
                interrupt(proxy)
        ledger.thread.join()
        assert cuts == 3
        assert not ledger.failed
        assert len(ledger.confirmed) == 3000
        assert set(ledger.confirmed) == received
        # What was acked into a cut connection, or sent twice, came again and is still to be settled.
        eventually(lambda: settle_all(receiver) == 0)


def settle_all(receiver: Receiver) -> int:
    """Acks what there is and returns what is left."""
    for delivery in receiver.receive(1000, 0.1):
        delivery.ack()
    receiver.flush(5)
    return receiver.lag()


def test_order_is_kept_through_a_cut(options: RabbitMQOptions, queue: Queue, proxy: TcpProxy) -> None:
    with opened(options, **through(proxy)) as driver:
        ledger = Ledger(driver, queue, 2000)
        eventually(lambda: len(ledger.confirmed) > 500)
        interrupt(proxy)
        ledger.thread.join()
        receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=1000))
        first_seen: dict[int, None] = {}
        while len(first_seen) < 2000:
            for delivery in take(receiver, 1):
                first_seen[int(delivery.body)] = None
                delivery.ack()
        assert list(first_seen) == list(range(2000))


def test_deliveries_of_a_lost_connection_are_stale(options: RabbitMQOptions, queue: Queue, proxy: TcpProxy) -> None:
    with opened(options, **through(proxy)) as driver:
        sender = driver.sender(ProducerOptions())
        assert not any(publish(sender, queue, *(message() for _ in range(10))))
        receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=20))
        old = take(receiver, 10)
        interrupt(proxy)
        again = take(receiver, 10)
        assert {d.id for d in again} == {d.id for d in old}
        assert all(d.attempt == 2 for d in again)
        assert not any(receiver.is_live(d) for d in old)
        old[0].ack()
        old[1].nack()
        old[2].nack(0.05)
        old[3].reject()
        receiver.flush(5)
        assert receiver.lag() == 10
        for delivery in again:
            delivery.ack()
        receiver.flush(5)
        assert receiver.lag() == 0


def test_a_publish_has_its_deadline_while_the_broker_is_away(
    options: RabbitMQOptions, queue: Queue, proxy: TcpProxy
) -> None:
    with opened(options, **through(proxy)) as driver:
        sender = driver.sender(ProducerOptions(timeout=0.5))
        assert publish(sender, queue, message()) == [None]
        proxy.cut()
        began = time.monotonic()
        [error] = publish(sender, queue, message())
        assert isinstance(error, PublishTimeout)
        assert 0.4 < time.monotonic() - began < 10  # the default is 30
        with pytest.raises(BrokerUnavailable):
            RabbitMQDriver(driver.options).open()
        proxy.resume()
        eventually(lambda: publish(sender, queue, message()) == [None])


@pytest.mark.only("rabbitmq:4")
def test_a_silent_broker_is_noticed_by_its_missing_heartbeat(
    options: RabbitMQOptions, queue: Queue, proxy: TcpProxy
) -> None:
    with opened(options, heartbeat=1, **through(proxy)) as driver:
        sender = driver.sender(ProducerOptions(timeout=30))
        assert publish(sender, queue, message()) == [None]
        proxy.blackhole()
        seen: list[MessagingError | None] = []
        sender.send([message()], Outgoing(queue), lambda _index, error: seen.append(error))
        eventually(lambda: driver.native is None, within=15)
        proxy.resume()
        eventually(lambda: seen == [None], within=15)


@pytest.mark.only("rabbitmq:4")
def test_close_is_bounded_while_the_broker_is_silent(options: RabbitMQOptions, queue: Queue, proxy: TcpProxy) -> None:
    with opened(options, **through(proxy)) as driver:
        sender = driver.sender(ProducerOptions(timeout=30))
        receiver = driver.receiver(Source(queue), ConsumerOptions())
        assert publish(sender, queue, message()) == [None]
        [delivery] = take(receiver, 1)
        proxy.blackhole()
        seen: list[MessagingError | None] = []
        sender.send([message()], Outgoing(queue), lambda _index, error: seen.append(error))
        delivery.reject()
        began = time.monotonic()
        receiver.close()
        sender.close(0.5)
        driver.close()
        assert time.monotonic() - began < 20
        assert isinstance(seen[0], PublishTimeout)


def test_close_ends_a_blocked_receive(driver: RabbitMQDriver, queue: Queue) -> None:
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    closer = threading.Timer(0.2, receiver.close)
    closer.start()
    began = time.monotonic()
    assert receiver.receive(1, 30) == []
    assert time.monotonic() - began < 5
    closer.join()


def test_no_thread_is_left(options: RabbitMQOptions, queue: Queue) -> None:
    before = our_threads()  # those of the fixture that declared the queue
    with opened(options) as driver:
        driver.receiver(Source(queue), ConsumerOptions())
        driver.sender(ProducerOptions())
        assert {thread.name for thread in our_threads() - before} == {"rabbitmq-publish", "rabbitmq-consume"}
    assert our_threads() == before


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("rabbitmq-")}
