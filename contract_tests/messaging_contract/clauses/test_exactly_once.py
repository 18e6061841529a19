"""Consume, process and produce in one transaction: each result is there once, whatever fails in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any, get_args

import pytest

from messaging import (
    ConfigurationError,
    Consumer,
    Delivery,
    MessagingError,
    Queue,
    RetryPolicy,
    TransactionAborted,
    UnsupportedCapability,
    Worker,
)
from messaging.topology import Source
from messaging.transaction import Transaction
from messaging_contract import transactional_victim
from messaging_contract.bench import Bench
from messaging_contract.clause import TOPIC, clause
from messaging_contract.ledger import Ledger

_VICTIM = 90.0
_COME_BACK = 120.0
"""Seconds until a transaction that a killed process left open is taken back, with the adapter's default timeout."""


def _made(bench: Bench) -> tuple[Source, Source]:
    """What is read, and where the results go."""
    return bench.source(), bench.source()


def _subscribe(bench: Bench, source: Source, **options: Any) -> Consumer:
    return bench.consume(source, delivery="exactly-once", **options)


def _take(bench: Bench, transaction: Transaction, count: int) -> list[Delivery]:
    """Receives `count` in one transaction."""
    taken: list[Delivery] = []

    def enough() -> bool:
        taken.extend(transaction.receive(count - len(taken), 0.5))
        return len(taken) == count

    bench.eventually(enough, lambda: f"{count} messages; there are {len(taken)}")
    return taken


def _copy(transaction: Transaction, deliveries: list[Delivery], target: Source) -> None:
    for delivery in deliveries:
        headers = dict(delivery.headers)
        transaction.publish(target.destination, delivery.body, key=delivery.key, id=delivery.id, headers=headers)


def _copy_all(bench: Bench, consumer: Consumer, target: Source, ids: set[str], timeout: float) -> None:
    """Copies in transactions until every one of `ids` was in one that was committed."""
    done: set[str] = set()

    def all_done() -> bool:
        try:
            with consumer.transaction() as transaction:
                deliveries = transaction.receive(100, 0.5)
                _copy(transaction, deliveries, target)
        except MessagingError as error:
            if not error.retryable:
                raise
            return False
        done.update(delivery.id for delivery in deliveries)
        return done >= ids

    bench.eventually(all_done, lambda: f"{len(ids - done)} of {len(ids)} messages to be done", timeout)


def _results(bench: Bench, target: Source, ledger: Ledger, count: int) -> list[Delivery]:
    """The results, each of `count` messages once and no other, as an independent consumer sees them."""
    consumer = bench.consume(target)
    found = bench.take(consumer, ledger, count, ack=True)
    bench.quiet(consumer, ledger)
    twice = [id for id, times in Counter(delivery.id for delivery in found).items() if times > 1]
    assert not twice, f"the results of {twice} are there more than once"
    return found


@contextmanager
def _working(bench: Bench, source: Source, handler: Callable[..., Any], retry: RetryPolicy) -> Iterator[Worker]:
    worker = Worker(bench.broker)
    group = source.group
    worker.on(source.destination.name, group, delivery="exactly-once", retry=retry)(handler)
    with worker:
        yield worker


@clause(
    "exactly_once.commit",
    "A transaction settles what was received in it and shows what was published in it; before, nobody sees it.",
    anchors=[12],
    on=TOPIC,
    needs="transactions",
)
def test_commit(bench: Bench) -> None:
    source, target = _made(bench)
    ledger, results = bench.ledger(), bench.ledger()
    seen = bench.consume(target)
    consumer = _subscribe(bench, source)
    sent = ledger.messages(20, keys=4)
    ledger.publish(bench.broker, source.destination, sent)
    results.attempted.update(ledger.attempted)
    with consumer.transaction() as transaction:
        taken = _take(bench, transaction, 20)
        _copy(transaction, taken, target)
        transaction.flush()
        bench.quiet(seen, results)
        assert consumer.lag() == 20, "settled before the transaction was committed"
    assert {delivery.id for delivery in bench.take(seen, results, 20, ack=True)} == {message.id for message in sent}
    assert all(delivery.settled for delivery in taken)
    bench.settled(seen)
    bench.settled(consumer)


@clause(
    "exactly_once.abort",
    "After an exception what was published is never seen, and what was received comes again, in order, as attempt 2.",
    anchors=[12],
    on=TOPIC,
    needs="transactions",
)
def test_abort(bench: Bench) -> None:
    source, target = _made(bench)
    ledger = bench.ledger()
    consumer = _subscribe(bench, source)
    ledger.publish(bench.broker, source.destination, ledger.messages(6, keys=1))
    with pytest.raises(ZeroDivisionError), consumer.transaction() as transaction:
        first = _take(bench, transaction, 6)
        _copy(transaction, first, target)
        transaction.flush()
        raise ZeroDivisionError
    with consumer.transaction() as transaction:
        again = _take(bench, transaction, 6)
        assert [d.id for d in again] == [d.id for d in first], "not the same messages in the same order"
        assert {d.attempt for d in again} == {2}
        _copy(transaction, again, target)
    _results(bench, target, ledger, 6)
    bench.settled(consumer)


@clause(
    "exactly_once.to-a-queue",
    "What a transaction took back is not seen on a queue either.",
    anchors=[12],
    on=TOPIC,
    needs=["transactions", "queues"],
)
def test_to_a_queue(bench: Bench) -> None:
    source, target = bench.source(), Source(bench.queue())
    ledger = bench.ledger()
    consumer = _subscribe(bench, source)
    ledger.publish(bench.broker, source.destination, ledger.messages(4, keys=1))
    for failing in (True, True, False):
        try:
            with consumer.transaction() as transaction:
                _copy(transaction, _take(bench, transaction, 4), target)
                transaction.flush()
                if failing:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
    _results(bench, target, ledger, 4)


@clause(
    "exactly_once.killed",
    "A process killed with its transaction published, stored or committed: each result is there exactly once.",
    anchors=[12, 46],
    failures=[5, 6],
    on=TOPIC,
    needs="transactions",
    controls="remote",
    deadline=600,
)
def test_killed(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    separator = "&" if "?" in remote else "?"
    url = f"{remote}{separator}transaction_timeout=5"
    for step in get_args(transactional_victim.Step):
        source, target = _made(bench)
        assert source.subscription is not None
        ledger = bench.ledger(step)
        sent = ledger.messages(20, keys=1)
        ledger.publish(bench.broker, source.destination, sent)
        group = source.subscription.group
        transactional_victim.run(url, source.destination.name, group, target.destination.name, step, _VICTIM)
        left = bench.depth(source)
        assert left == (10 if step == "committed" else 15), f"{left} of 20 unsettled after {step}"
        consumer = _subscribe(bench, source)
        _copy_all(bench, consumer, target, {message.id for message in sent[20 - left :]}, _COME_BACK)
        found = _results(bench, target, ledger, 20)
        assert [d.id for d in found] == [m.id for m in sent], "the results are not in the order of the messages"


@clause(
    "exactly_once.taken-over",
    "Who lost its part of the topic to another consumer in the midst of a transaction cannot commit it.",
    anchors=[12, 73],
    on=TOPIC,
    needs="transactions",
    deadline=240,
)
def test_taken_over(bench: Bench) -> None:
    source, target = _made(bench)
    ledger = bench.ledger()
    sent = ledger.messages(40, keys=16)
    ledger.publish(bench.broker, source.destination, sent)
    one = _subscribe(bench, source)
    two: list[Consumer] = []
    with pytest.raises(TransactionAborted), one.transaction() as transaction:
        _copy(transaction, _take(bench, transaction, 40), target)
        transaction.flush()
        two.append(_subscribe(bench, source, prefetch=1))
        joined = bench.harness.joined
        assert joined is not None
        bench.eventually(lambda: joined(source, 2), "two consumers to have their shares", 60)
    done: set[str] = set()

    def all_done() -> bool:
        for consumer in (one, two[0]):
            try:
                with consumer.transaction() as transaction:
                    deliveries = transaction.receive(100, 0.5)
                    _copy(transaction, deliveries, target)
            except TransactionAborted:
                continue
            done.update(delivery.id for delivery in deliveries)
        return len(done) == 40

    bench.eventually(all_done, lambda: f"all 40 to be done; {len(done)} are", 90)
    _results(bench, target, ledger, 40)


@clause(
    "exactly_once.cut",
    "Connections cut at any time in a stream of transactions: each result is there exactly once.",
    anchors=[12],
    failures=[1],
    on=TOPIC,
    needs="transactions",
    controls="link",
    deadline=300,
)
def test_cut(bench: Bench) -> None:
    source, target = _made(bench)
    ledger = bench.ledger()
    count = 200
    sent = ledger.messages(count, keys=8)
    ledger.publish(bench.broker, source.destination, sent)
    link = bench.link()
    broker = bench.adopt(link.connect(topology=[source.destination, target.destination]))
    consumer = _subscribe(bench, source, broker=broker)
    done: set[str] = set()
    transactions = 0

    def all_done() -> bool:
        nonlocal transactions
        try:
            with consumer.transaction() as transaction:
                deliveries = transaction.receive(10, 0.5)
                _copy(transaction, deliveries, target)
                transactions += 1
                if transactions % 4 == 0 and transactions < 20:
                    link.cut()
                    link.resume()
        except MessagingError as error:
            if not error.retryable:
                raise
            return False
        done.update(delivery.id for delivery in deliveries)
        return len(done) == count or (not deliveries and bench.depth(source) == 0)

    bench.eventually(all_done, lambda: f"all {count} to be done; {len(done)} are", 240)
    _results(bench, target, ledger, count)


@clause(
    "exactly_once.worker",
    "A worker whose handler fails: each result once, also of others in the batch; the last failure is a dead letter.",
    anchors=[12, 79],
    on=TOPIC,
    needs=["transactions", "dead_letter"],
    deadline=180,
)
def test_worker(bench: Bench) -> None:
    source, target = _made(bench)
    ledger = bench.ledger()
    sent = ledger.messages(12, keys=1)
    poison, flaky = sent[3].id, sent[7].id
    attempts: Counter[str] = Counter()

    def handle(delivery: Delivery, transaction: Transaction) -> None:
        attempts[delivery.id] += 1
        _copy(transaction, [delivery], target)
        if delivery.id == poison or (delivery.id == flaky and delivery.attempt == 1):
            raise RuntimeError("told to fail")

    with _working(bench, source, handle, RetryPolicy(attempts=3, delays=(0.1,))) as worker:
        ledger.publish(bench.broker, source.destination, sent)
        bench.eventually(lambda: bench.depth(source) == 0, "everything to be handled", 60)
        stats = worker.registrations[0].stats
        bench.eventually(lambda: stats.handled == 11 and stats.dead_lettered == 1, lambda: f"the right counts: {stats}")
    assert attempts[poison] == 3, f"{attempts[poison]} attempts of the message that always fails"
    found = _results(bench, target, ledger, 11)
    assert [d.id for d in found] == [m.id for m in sent if m.id != poison], "the results are not in order"
    letters = bench.dead_letters(source)
    letter = bench.one(letters, ledger)
    assert letter.id == poison
    letter.ack()
    bench.quiet(letters, ledger)


@clause(
    "exactly_once.worker-stops",
    "A worker stopped in the midst of a batch settles what it handled, and leaves the rest to others, once.",
    on=TOPIC,
    needs="transactions",
    deadline=180,
)
def test_worker_stops(bench: Bench) -> None:
    source, target = _made(bench)
    ledger = bench.ledger()
    sent = ledger.messages(10, keys=1)
    ledger.publish(bench.broker, source.destination, sent)
    reached, go_on = Event(), Event()

    def slow(delivery: Delivery, transaction: Transaction) -> None:
        _copy(transaction, [delivery], target)
        if delivery.id == sent[3].id:
            reached.set()
            assert go_on.wait(bench.patience)

    def fast(delivery: Delivery, transaction: Transaction) -> None:
        _copy(transaction, [delivery], target)

    with _working(bench, source, slow, RetryPolicy()) as worker:
        assert reached.wait(bench.patience)
        worker.request_stop()
        worker._pools[0].stop()
        go_on.set()
    assert bench.depth(source) == 6, "not those four and no other were settled"
    with _working(bench, source, fast, RetryPolicy()):
        bench.eventually(lambda: bench.depth(source) == 0, "the rest to be handled", 60)
    _results(bench, target, ledger, 10)


@clause(
    "exactly_once.asked-wrongly",
    "Receiving outside of a transaction, one without exactly-once, a second one, and a nack are refused loudly.",
    on=TOPIC,
    needs="transactions",
)
def test_asked_wrongly(bench: Bench) -> None:
    source, target = _made(bench)
    ledger = bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(1, keys=1))
    with pytest.raises(ConfigurationError, match="exactly-once"):
        bench.consume(source).transaction()
    consumer = _subscribe(bench, source)
    with pytest.raises(ConfigurationError, match="transaction"):
        consumer.receive(1, 0.1)
    transaction = consumer.transaction()
    with pytest.raises(ConfigurationError):
        transaction.receive(1, 0.1)
    with transaction:
        [delivery] = _take(bench, transaction, 1)
        with pytest.raises(UnsupportedCapability):
            delivery.nack()
        with pytest.raises(ConfigurationError, match="another"), consumer.transaction():
            pytest.fail("two transactions of one consumer would mix what they publish")
    with pytest.raises(ConfigurationError):
        transaction.publish(target.destination, b"late")
    worker = Worker(bench.broker)
    with pytest.raises(ConfigurationError, match="transaction"):
        worker.on("x", "g", delivery="exactly-once")(lambda _delivery: None)
    with pytest.raises(ConfigurationError, match="concurrency"):
        worker.on("x", "g", delivery="exactly-once", concurrency=2)(lambda _delivery, _transaction: None)


@clause(
    "exactly_once.refused-on-queues",
    "Where transactions are not to be had for a source, it is refused by name, and the way out is told.",
    on=TOPIC,
    needs=["transactions", "queues"],
)
def test_refused_on_queues(bench: Bench) -> None:
    queue: Queue = bench.queue()
    with pytest.raises(UnsupportedCapability, match="at-least-once"):
        bench.broker.subscribe(queue, delivery="exactly-once")
