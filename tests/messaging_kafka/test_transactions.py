"""What a transaction must survive and only this adapter's insides can show; the rest is in the contract's clauses."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from confluent_kafka import TopicPartition

from messaging import Broker, BrokerUnavailable, Consumer, Delivery, Message, MessagingError, TransactionAborted
from messaging.transaction import Transaction
from messaging_contract.harness import Harness
from messaging_kafka import transactional_receiver
from messaging_kafka.transactional_sender import TransactionalSender

from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]


def made(connect: Connect, name: str, count: int, **options: object) -> Broker:
    """`count` messages in `name`, which group "g" reads; results go to `<name>-out`, which "reader" reads."""
    broker = connect(one_partition(name), one_partition(f"{name}-out", "reader"), **options)
    broker.publish_many(name, [Message.of(n, key="k") for n in range(count)])
    return broker


def received(transaction: Transaction, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    deadline = time.monotonic() + 30
    while len(taken) < count:
        assert time.monotonic() < deadline, f"{len(taken)} of {count} came"
        taken += transaction.receive(count - len(taken), 0.5)
    return taken


def copy(transaction: Transaction, deliveries: list[Delivery], name: str) -> None:
    for delivery in deliveries:
        transaction.publish(f"{name}-out", delivery.value, key="k")


def copy_all(broker: Broker, consumer: Consumer, name: str) -> None:
    """Until nothing is left, whatever happens meanwhile."""
    deadline = time.monotonic() + 60
    while broker.depth(name, "g"):
        assert time.monotonic() < deadline
        try:
            with consumer.transaction() as transaction:
                copy(transaction, transaction.receive(10, 0.5), name)
        except MessagingError as error:
            if not error.retryable:
                raise


def check_results(broker: Broker, name: str, count: int) -> None:
    with broker.subscribe(f"{name}-out", "reader") as reader:
        assert [delivery.value for delivery in take(reader, count, 60)] == list(range(count))
        assert reader.receive(1, 1.0) == [], "more results than messages"


def test_the_end_of_a_partition_behind_messages(connect: Connect, name: str) -> None:
    """Read in one go by a thread that was held up, it made what was being handled stale, and a nack of it was lost."""
    broker = connect(one_partition(name))
    with broker.subscribe(name, "g") as consumer:
        broker.publish(name, 0, key="k")
        (first,) = take(consumer, 1)
        held_up, go_on = threading.Event(), threading.Event()

        def hold_up() -> None:
            held_up.set()
            go_on.wait(30)

        consumer._receiver._loop.post(hold_up)  # type: ignore[attr-defined]
        assert held_up.wait(30)
        broker.publish_many(name, [Message.of(n, key="k") for n in range(1, 20)])
        go_on.wait(1.0)  # the client's own thread reads to the end
        go_on.set()
        rest = take(consumer, 19)
        first.nack()
        (again,) = take(consumer, 1)
        assert (again.value, again.attempt) == (0, 2)
        consumer.ack([again, *rest])
        consumer.flush()
        assert broker.depth(name, "g") == 0


def test_expired_in_a_transaction_that_failed(connect: Connect, name: str) -> None:
    """It is handed out to nobody, so no later transaction has it, and none could move past it."""
    broker = made(connect, name, 0)
    broker.publish(name, "old", key="k", ttl=0.01)
    broker.publish(name, 0, key="k")
    with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
        with pytest.raises(ZeroDivisionError), consumer.transaction() as transaction:
            assert [delivery.value for delivery in received(transaction, 1)] == [0]
            raise ZeroDivisionError
        with consumer.transaction() as transaction:
            copy(transaction, received(transaction, 1), name)
        assert broker.depth(name, "g") == 0
    check_results(broker, name, 1)


def test_no_answer_in_time(connect: Connect, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when a commit asks for the position, nor when the next transaction wants to go back to it."""
    broker = made(connect, name, 10)
    monkeypatch.setattr(transactional_receiver, "_CALL", 0.5)
    with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
        go_on = threading.Event()
        loop = consumer._receiver._loop  # type: ignore[attr-defined]
        held_up = threading.Thread(target=lambda: loop.call(lambda: go_on.wait(30), 30))
        with pytest.raises(BrokerUnavailable), consumer.transaction() as transaction:
            copy(transaction, received(transaction, 5), name)
            held_up.start()
        with pytest.raises(BrokerUnavailable), consumer.transaction():
            pytest.fail("it began, though what is settled was not known")
        go_on.set()
        held_up.join()
        copy_all(broker, consumer, name)
    check_results(broker, name, 10)


def test_interrupted_right_after_a_commit(connect: Connect, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, before anything here knows of the commit."""
    broker = made(connect, name, 10)
    commit = TransactionalSender.commit

    def interrupted(self: TransactionalSender, offsets: list[TopicPartition], group: object, timeout: float) -> None:
        monkeypatch.undo()
        commit(self, offsets, group, timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr(TransactionalSender, "commit", interrupted)
    with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
        with pytest.raises(KeyboardInterrupt), consumer.transaction() as transaction:
            copy(transaction, received(transaction, 5), name)
        copy_all(broker, consumer, name)
    check_results(broker, name, 10)


def test_a_dead_letter_that_the_client_does_not_take(connect: Connect, name: str) -> None:
    """Its queue is full: then its message must not be settled."""
    broker = made(connect, name, 4, config={"queue.buffering.max.messages": "1", "linger.ms": "200"})
    with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
        with pytest.raises(TransactionAborted, match="dead-letter"), consumer.transaction() as transaction:
            for delivery in received(transaction, 4):
                delivery.reject()
        assert broker.depth(name, "g") == 4
        for _ in range(4):
            with consumer.transaction() as transaction:
                received(transaction, 1)[0].reject()
    letters = broker.dead_letter_queue(name, "g").peek(10)
    assert sorted(letter.body for letter in letters) == [b"0", b"1", b"2", b"3"]


def test_a_transaction_longer_than_its_timeout(connect: Connect, name: str) -> None:
    """The broker took it back, so it cannot be committed."""
    broker = made(connect, name, 5, transaction_timeout=1)
    end = threading.Event()
    with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
        with pytest.raises(MessagingError) as raised, consumer.transaction() as transaction:
            copy(transaction, received(transaction, 5), name)
            transaction.flush()
            end.wait(14)  # Kafka looks for such every ten seconds
        assert raised.value.retryable
        copy_all(broker, consumer, name)
    check_results(broker, name, 5)


def test_the_broker_restarted_in_a_transaction(connect: Connect, name: str, kafka: Harness) -> None:
    if kafka.restart is None:
        pytest.skip("this Kafka cannot be restarted from here")
    broker = made(connect, name, 30)
    with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
        with suppress(BrokerUnavailable, TransactionAborted), consumer.transaction() as transaction:
            copy(transaction, received(transaction, 10), name)
            transaction.flush()
            kafka.restart()
        copy_all(broker, consumer, name)
    check_results(broker, name, 30)


def test_closed_by_another_thread(connect: Connect, name: str) -> None:
    broker = made(connect, name, 10)
    consumer = broker.subscribe(name, "g", delivery="exactly-once")
    with pytest.raises(MessagingError, match="closed"), consumer.transaction() as transaction:
        copy(transaction, received(transaction, 5), name)
        closer = threading.Thread(target=consumer.close)
        closer.start()
        closer.join()
    with broker.subscribe(name, "g", delivery="exactly-once") as other:
        copy_all(broker, other, name)
    check_results(broker, name, 10)


@pytest.mark.parametrize("what", ["replay", "purge"])
def test_moved_in_a_transaction(connect: Connect, name: str, what: str) -> None:
    broker = made(connect, name, 10)
    with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
        with pytest.raises(TransactionAborted), consumer.transaction() as transaction:
            copy(transaction, received(transaction, 10), name)
            if what == "replay":
                consumer.replay("beginning")
            else:
                broker.purge(name, "g")
        if what == "replay":
            copy_all(broker, consumer, name)
            check_results(broker, name, 10)
        else:
            assert broker.depth(name, "g") == 0
            check_results(broker, name, 0)


_FROZEN = """
import sys, messaging
url, name = sys.argv[1:]
broker = messaging.connect(url, topology=messaging.Topic(name + "-out"), group_protocol="classic",
                           config={"session.timeout.ms": "6000"})
consumer = broker.subscribe(name, "g", delivery="exactly-once")
try:
    with consumer.transaction() as transaction:
        taken = []
        while len(taken) < 10:
            taken += transaction.receive(10 - len(taken), 5)
        for delivery in taken:
            transaction.publish(name + "-out", delivery.value, key="k")
        transaction.flush()
        print("frozen", flush=True)
        sys.stdin.readline()
except messaging.TransactionAborted:
    print("aborted", flush=True)
except messaging.BrokerUnavailable:
    print("unknown", flush=True)
else:
    print("committed", flush=True)
"""


def test_frozen_until_another_took_over(connect: Connect, cluster: Cluster, name: str, url: str) -> None:
    """A zombie: it goes on when its messages were handled elsewhere, and must not commit."""
    broker = made(connect, name, 10)
    with subprocess.Popen(
        [sys.executable, "-c", _FROZEN, url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as zombie:
        try:
            assert zombie.stdout is not None
            assert zombie.stdout.readline() == "frozen\n"
            zombie.send_signal(signal.SIGSTOP)
            with broker.subscribe(name, "g", delivery="exactly-once") as consumer:
                copy_all(broker, consumer, name)
                zombie.send_signal(signal.SIGCONT)
                assert zombie.communicate("\n", timeout=60)[0] == "aborted\n"
        finally:
            zombie.kill()
    check_results(broker, name, 10)
