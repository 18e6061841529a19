"""Publishing: what a returned id promises, and what happens when there is nothing to promise."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from messaging import (
    BatchPublishFailed,
    Closed,
    DestinationNotFound,
    InvalidMessage,
    MessagingError,
    PublishTimeout,
    Queue,
    Subscription,
    Topic,
    TopologyError,
    Unroutable,
)
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, TOPIC, clause


@clause(
    "publish.round-trip", "A published message arrives once, with the same id and byte-identical body.", anchors=[1, 5]
)
def test_round_trip(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    message = ledger.message(b'{"exactly":  "these bytes"}\n', content_type="application/json")
    assert ledger.publish_one(bench.broker, source.destination, message) == message.id
    [delivery] = bench.take(consumer, ledger, ack=True)
    assert (delivery.id, delivery.body) == (message.id, message.body)
    bench.quiet(consumer, ledger)
    ledger.check()


@clause(
    "publish.confirmed-is-stored",
    "When publish has returned the id, the broker holds the message, whatever becomes of the publisher.",
    anchors=[5, 14],
    failures=[2],
)
def test_confirmed_is_stored(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    publisher = bench.connect()
    ledger.publish_one(publisher, source.destination, ledger.message())
    publisher.close()
    bench.eventually(lambda: bench.depth(source) == 1, "a depth of 1")
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause("publish.many-complete", "A list published in one call arrives complete, ids in the order given.", anchors=[2])
def test_many_complete(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    messages = ledger.messages(25)
    assert ledger.publish(bench.broker, source.destination, messages) == [message.id for message in messages]
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "publish.many-of-values",
    "publish_many takes plain values and messages with fields of their own; an empty list is no call.",
    anchors=[2],
    on=QUEUE,
)
def test_many_of_values(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()
    consumer = bench.consume(queue)
    assert bench.broker.publish_many(queue, []) == []
    ids = bench.broker.publish_many(queue, ["plain", b"bytes", ledger.message("own", type="a.b", id="own-id")])
    assert len(set(ids)) == 3
    assert ids[2] == "own-id"
    found: dict[str, object] = {}
    deadline = time.monotonic() + bench.patience
    while len(found) < 3 and time.monotonic() < deadline:
        for delivery in consumer.receive(10, 0.5):
            found[delivery.id] = (delivery.value, delivery.type)
            delivery.ack()
    assert found == {ids[0]: ("plain", ""), ids[1]: (b"bytes", ""), "own-id": ("own", "a.b")}


@clause(
    "publish.before-consumer",
    "Messages published before any consumer is attached are delivered when one attaches.",
    anchors=[3, 14, 71],
)
def test_before_consumer(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "publish.concurrent",
    "Many threads publishing through one producer lose nothing, and each gets the id of its own message.",
    anchors=[4],
    failures=[16],
)
def test_concurrent(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    each = max(bench.volume(1000) // 20, 2)

    def publish(_thread: int) -> None:
        for message in ledger.messages(each):
            assert ledger.publish_one(bench.broker, source.destination, message) == message.id

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(publish, range(20)))
    assert len(ledger.confirmed) == each * 20
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "publish.missing-destination",
    "Publishing to a destination that does not exist, with creation switched off, raises DestinationNotFound.",
    anchors=[6, 11, 153],
    failures=[3],
)
def test_missing_destination(bench: Bench) -> None:
    name = bench.name()
    missing = Queue(name) if bench.kind == "queue" else Topic(name)
    broker = bench.connect(create=False)
    calls: tuple[Callable[[], object], ...] = (
        lambda: broker.publish(missing, 1),
        lambda: broker.publish_many(missing, [1, 2]),
        lambda: broker.publish_nowait(missing, 1).result(30),
    )
    for publish in calls:
        started = time.monotonic()
        with pytest.raises((DestinationNotFound, BatchPublishFailed)) as raised:
            publish()
        if isinstance(raised.value, BatchPublishFailed):
            assert all(isinstance(error, DestinationNotFound) for error in raised.value.failures.values())
        assert name in str(raised.value)
        assert time.monotonic() - started < 30


@clause(
    "publish.deleted-destination",
    "A message for a destination that was deleted meanwhile, alone or in a batch, is never confirmed and then lost.",
    anchors=[6, 11, 18],
    failures=[3, 18],
    deadline=180,
)
def test_deleted_destination(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    producer = bench.connect(topology=source.destination, create=False).producer(timeout=bench.patience)
    ledger.publish_one(producer, source.destination.name, ledger.message())
    bench.broker.delete(source.destination)
    confirmed = 0
    for messages in (ledger.messages(1), ledger.messages(3)):
        try:
            confirmed += len(producer.publish_many(source.destination.name, messages))
        except BatchPublishFailed as failed:
            confirmed += len(messages) - len(failed.failures)
        except MessagingError:
            pass
    with suppress(MessagingError):
        producer.publish(source.destination.name, ledger.message())
        confirmed += 1
    if confirmed:  # it came back to life: the broker creates what is published to
        bench.eventually(lambda: bench.depth(source) >= confirmed, f"{confirmed} confirmed messages to be stored")
    there, stored = bench.source(), bench.ledger("there")
    stored.publish_one(producer, there.destination, stored.message())
    bench.take(bench.consume(there), stored, ack=True)
    stored.check()


@clause(
    "publish.undeclared-name",
    "Publishing to a plain name that was never declared raises TopologyError; nothing is guessed or created.",
    anchors=[6, 153],
    on=QUEUE,
)
def test_undeclared_name(bench: Bench) -> None:
    name = bench.name()
    with pytest.raises(TopologyError, match=name):
        bench.broker.publish(name, 1)
    with pytest.raises(TopologyError, match=name):
        bench.broker.publish_many(name, [1])
    with pytest.raises(DestinationNotFound):
        bench.connect(topology=Queue(name), create=False)


@clause(
    "publish.no-subscriber",
    "Publishing to a topic that nobody subscribes to succeeds.",
    anchors=[8],
    on=TOPIC,
)
def test_no_subscriber(bench: Bench) -> None:
    topic = bench.topic()
    assert bench.broker.publish(topic, 1)
    assert len(bench.broker.publish_many(topic, [1, 2])) == 2


@clause(
    "publish.mandatory-unroutable",
    "With mandatory=True a message that no subscription takes raises Unroutable, and only that one.",
    anchors=[7, 11],
    failures=[29],
    on=TOPIC,
    needs="mandatory",
)
def test_mandatory_unroutable(bench: Bench) -> None:
    ledger = bench.ledger()
    if not bench.able.patterns:  # then only a topic without subscriptions can have nobody who takes it
        with pytest.raises(Unroutable):
            ledger.publish_one(bench.broker, bench.topic(), ledger.message(), mandatory=True)
        taking = bench.topic("g")
        ledger.publish_one(bench.broker, taking, ledger.message(), mandatory=True)
        bench.take(bench.consume(taking, "g"), ledger, ack=True)
        ledger.check()
        return
    topic = bench.topic(Subscription("g", "taken"))
    consumer = bench.consume(topic, "g")
    taken = ledger.message(type="taken")
    ledger.publish_one(bench.broker, topic, taken, mandatory=True)
    with pytest.raises(Unroutable):
        ledger.publish_one(bench.broker, topic, ledger.message(type="other"), mandatory=True)
    future = bench.broker.publish_nowait(topic, ledger.message(type="other"), mandatory=True)
    assert isinstance(future.exception(bench.patience), Unroutable)
    second = ledger.message(type="taken")
    ledger.confirm(bench.broker.publish_nowait(topic, second, mandatory=True).result(30))
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "publish.deadline-passed",
    "A publish whose deadline has already passed raises PublishTimeout at once and sends nothing.",
    anchors=[9],
)
def test_deadline_passed(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    started = time.monotonic()
    with pytest.raises(PublishTimeout):
        bench.broker.publish(source.destination, ledger.message(), timeout=-1)
    with pytest.raises(PublishTimeout):
        bench.broker.publish_many(source.destination, ledger.messages(2), timeout=0)
    assert time.monotonic() - started < 1
    bench.quiet(consumer, ledger)


@clause("publish.after-close", "Publishing through a closed producer or broker raises Closed.", anchors=[10])
def test_after_close(bench: Bench) -> None:
    source = bench.source()
    broker = bench.connect(topology=source.destination)
    producer = broker.producer()
    producer.close()
    with pytest.raises(Closed):
        producer.publish(source.destination, 1)
    assert broker.publish(source.destination, 1)
    broker.close()
    for publish in (broker.publish, broker.publish_nowait, producer.publish_nowait):
        with pytest.raises(Closed):
            publish(source.destination, 1)
    with pytest.raises(Closed):
        broker.publish_many(source.destination, [1])


@clause(
    "publish.nowait",
    "publish_nowait gives a future of the id, which is done once the broker confirmed.",
    anchors=[5, 118],
)
def test_nowait(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    messages = ledger.messages(bench.volume(100))
    futures = [bench.broker.publish_nowait(source.destination, message) for message in messages]
    assert [future.result(30) for future in futures] == [message.id for message in messages]
    ledger.confirm(message.id for message in messages)
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "publish.flush",
    "flush returns when everything published before it is confirmed.",
    anchors=[13],
    failures=[4],
)
def test_flush(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    with bench.connect(topology=source.destination) as broker:
        producer = broker.producer()
        messages = ledger.messages(bench.volume(200))
        futures = [producer.publish_nowait(source.destination, message) for message in messages]
        producer.flush(30)
        assert all(future.done() for future in futures)
        ledger.confirm(future.result() for future in futures)
        own = ledger.message()
        future = broker.publish_nowait(source.destination, own)
        broker.flush(30)
        assert future.done()
        ledger.confirm(future.result())
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "publish.close-flushes",
    "Closing a producer or a broker sends everything that publish_nowait had accepted.",
    anchors=[13, 118],
    failures=[4],
)
def test_close_flushes(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    with broker.producer() as producer:
        futures = [producer.publish_nowait(source.destination, m) for m in ledger.messages(bench.volume(200))]
    assert producer.closed
    assert all(future.done() for future in futures)
    futures += [broker.publish_nowait(source.destination, m) for m in ledger.messages(bench.volume(200))]
    broker.close()
    assert all(future.done() for future in futures)
    ledger.confirm(future.result(0) for future in futures)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "publish.bounded-in-flight",
    "A producer bounded to few messages in flight still publishes many, from several threads.",
    anchors=[4],
    on=QUEUE,
)
def test_bounded_in_flight(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    producer = broker.producer(max_in_flight=2, timeout=30)

    def publish(_thread: int) -> None:
        ledger.publish(producer, source.destination, ledger.messages(7))
        futures = [producer.publish_nowait(source.destination, message) for message in ledger.messages(3)]
        ledger.confirm(future.result(30) for future in futures)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, range(4)))
    assert producer.in_flight == 0
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "publish.batch-failures",
    "A batch with one message that cannot be carried says so, and what it says is what happened.",
    anchors=[18, 112],
    failures=[18],
)
def test_batch_failures(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    messages = [ledger.message(), ledger.message(key="x" * 300), ledger.message()]
    with pytest.raises((InvalidMessage, BatchPublishFailed)) as raised:
        ledger.publish(bench.broker, source.destination, messages)
    if isinstance(raised.value, BatchPublishFailed):
        assert set(raised.value.failures) == {1}
        bench.take(consumer, ledger, ack=True)
    bench.quiet(consumer, ledger)
    ledger.check()


@clause(
    "publish.empty-body",
    "An empty body and None arrive as they are: neither is dropped or turned into something else.",
    anchors=[15],
)
def test_empty_body(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    empty, null = ledger.message(b""), ledger.message(None)
    ledger.publish_one(bench.broker, source.destination, null)
    with suppress(InvalidMessage):
        ledger.publish_one(bench.broker, source.destination, empty)
    found = {d.id: d for d in bench.take(consumer, ledger, ack=True)}
    assert found[null.id].value is None
    if empty.id in found:
        assert found[empty.id].body == b""
        assert found[empty.id].value == b""
    ledger.check()


@clause(
    "publish.ttl-expired",
    "A message past its time to live is not delivered, and does not count as waiting for ever.",
    anchors=[16],
    needs="ttl",
)
def test_ttl_expired(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    bench.broker.publish(source.destination, ledger.message(), delay=0)
    short = ledger.message(ttl=0.3)
    alive = ledger.message(ttl=600)
    bench.broker.publish(source.destination, short)
    ledger.publish_one(bench.broker, source.destination, alive)
    assert short.expires_at is not None
    expires_at = short.expires_at
    bench.eventually(lambda: time.time() > expires_at, "the message to expire")
    consumer = bench.consume(source)
    received = bench.take(consumer, ledger, 2, ack=True)
    assert {d.id for d in received} == {next(iter(ledger.attempted)), alive.id}
    bench.quiet(consumer, ledger)
    bench.eventually(lambda: bench.depth(source) == 0, "the expired message to be gone")


@clause(
    "publish.destination-value",
    "A destination may be named or given as a value; a value is declared at first use.",
    anchors=[153],
)
def test_destination_value(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    ledger.publish_one(broker, source.destination.name, ledger.message())
    ledger.publish_one(broker, source.destination, ledger.message())
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()
    fresh = Queue(bench.name()) if bench.kind == "queue" else Topic(bench.name())
    assert broker.publish(fresh, 1)
    if isinstance(fresh, Queue):
        bench.eventually(lambda: broker.depth(fresh) == 1, "a depth of 1 of what was declared by publishing to it")


@clause(
    "publish.failed-leaves-producer-usable",
    "A publish that failed says whether it may be tried again, and the same producer goes on working.",
    anchors=[11, 148],
    failures=[3],
)
def test_failed_leaves_producer_usable(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    producer = bench.broker.producer()
    calls: tuple[Callable[[], str], ...] = (
        lambda: producer.publish(source.destination, object()),
        lambda: producer.publish(source.destination, 1, headers={"": "x"}),
        lambda: producer.publish("nowhere", 1),
        lambda: producer.publish(source.destination, 1, timeout=-1),
    )
    if bench.able.topics and bench.able.mandatory:  # the only one of these that the broker finds
        lonely = bench.topic()
        calls += (lambda: producer.publish(lonely, 1, mandatory=True),)
    for wrong in calls:
        with pytest.raises(MessagingError) as raised:
            wrong()
        assert raised.value.retryable is isinstance(raised.value, PublishTimeout)
    assert producer.in_flight == 0
    ledger.publish_one(producer, source.destination, ledger.message())
    producer.close()
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()
