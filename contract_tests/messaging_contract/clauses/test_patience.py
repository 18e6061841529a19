"""Slow handlers, brokers that refuse, credentials that expire: what a broker or client does without being asked."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from threading import Event

import pytest

from messaging import (
    AuthenticationFailed,
    BatchPublishFailed,
    InvalidMessage,
    MessagingError,
    PublishFailed,
    Queue,
    SettleFailed,
)
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause


@clause(
    "settle.outlasts-impatience",
    "A message handled for longer than the shortest heartbeat, poll interval or lease allows is handled once.",
    anchors=[53],
    failures=[8, 9, 19],
    controls="impatient",
    deadline=180,
)
def test_outlasts_impatience(bench: Bench) -> None:
    assert bench.harness.impatient is not None
    impatient = bench.harness.impatient(bench.able, bench.kind)
    source, ledger = bench.source(), bench.ledger()
    if impatient.before is not None:
        impatient.before(source)
    broker = bench.connect(**impatient.options)
    consumer = bench.consume(source, broker=broker, prefetch=4)
    ledger.publish(bench.broker, source.destination, ledger.messages(impatient.messages, keys=4))
    held = bench.take(consumer, ledger, 4)
    Event().wait(impatient.seconds)  # the handler: nobody calls the consumer meanwhile
    consumer.ack(held)
    consumer.flush()
    again = bench.take(consumer, ledger, ack=True)
    consumer.flush()
    assert {delivery.attempt for delivery in again} == {1}, "what waited behind the slow handler was given back"
    bench.settled(consumer)
    bench.quiet(consumer, ledger)
    ledger.check()


@clause(
    "faults.delivery-ack-timeout",
    "What the broker took back because it was not settled in time comes again, and the consumer goes on by itself.",
    anchors=[52, 53],
    failures=[10, 11],
    controls="short_ack_timeout",
    deadline=150,
)
def test_delivery_ack_timeout(bench: Bench) -> None:
    short = bench.harness.short_ack_timeout
    assert short is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    with short():
        consumer = bench.consume(source, broker=bench.connect(), prefetch=2)
        ledger.publish(bench.broker, source.destination, ledger.messages(3))
        held = bench.take(consumer, ledger, 2)
        again = bench.take(consumer, ledger, 1, timeout=2 * bench.patience)  # no room before the broker took both back
        assert again[0].id in {delivery.id for delivery in held}
        assert again[0].attempt == 2
        consumer.ack(held)  # too late, and harmless
        consumer.ack(again)
        rest = {message for message in ledger.attempted if message != again[0].id}
        done = ledger.view("done")
        bench.take(consumer, done, ack=True, only=rest, timeout=2 * bench.patience)
        assert rest <= set(done.received), "the consumer idles, or what it held is gone"
        bench.settled(consumer)
    more = bench.ledger("more")
    more.publish(bench.broker, source.destination, more.messages(3))
    bench.take(consumer, more, ack=True)
    more.check(duplicates=True)


@clause(
    "faults.credentials-expire",
    "Credentials that expire are told as AuthenticationFailed to whoever asks; with new ones all goes on by itself.",
    anchors=[132, 148],
    failures=[21],
    controls="expiring",
    deadline=150,
)
def test_credentials_expire(bench: Bench) -> None:
    source, ledger, credentials = bench.source(), bench.ledger(), bench.expiring()
    broker = bench.adopt(credentials.connect(topology=source.destination))
    consumer = bench.consume(source, broker=broker, lease=5.0 if bench.able.lease else None)
    ledger.publish(broker, source.destination, ledger.messages(2))
    held = bench.take(consumer, ledger, 2)
    credentials.expire()
    with pytest.raises(AuthenticationFailed) as raised:
        ledger.publish_one(broker, source.destination, ledger.message())
    assert not raised.value.retryable
    told: list[MessagingError] = []

    def hear() -> bool:
        try:
            consumer.receive(1, 0.3)
        except AuthenticationFailed as error:
            told.append(error)
        except SettleFailed:
            pass
        return bool(told)

    bench.eventually(hear, "the consumer to be told that its credentials are refused")
    consumer.ack(held)
    credentials.renew()
    ledger.publish(broker, source.destination, ledger.messages(2))

    def done() -> bool:
        with suppress(AuthenticationFailed):  # what failed while nobody listened is told now
            consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.3)))
        return not ledger.missing and bench.depth(source) == 0

    bench.eventually(done, lambda: f"the consumer to go on: {ledger.missing} did not come", 2 * bench.patience)
    ledger.check(duplicates=True)


@clause(
    "publish.refused-by-the-broker",
    "What the broker itself refuses, later than the client could know, is told for each message, and nothing of it "
    "arrives; the others do.",
    anchors=[5, 11, 18],
    failures=[3],
    on=QUEUE,
    controls="narrow",
)
def test_refused_by_the_broker(bench: Bench) -> None:
    narrow = bench.harness.narrow
    assert narrow is not None
    broker = bench.connect() if narrow.connect is None else bench.adopt(narrow.connect())
    queue, ledger = Queue(bench.name(), native=narrow.native), bench.ledger()
    broker.declare(queue)
    if narrow.then is not None:
        narrow.then(queue)
    producer = broker.producer(timeout=bench.seconds(8.0))  # a full one may wait for room that never comes
    large = "x" * narrow.large
    messages = [ledger.message(value) for _ in range(3) for value in ("x", large, "y", large)]
    told: dict[str, BaseException] = {}
    for message in messages[:4]:
        try:
            ledger.publish_one(producer, queue, message)
        except MessagingError as error:
            told[message.id] = error
    try:
        ledger.publish(producer, queue, messages[4:8])
    except BatchPublishFailed as failed:
        told.update({messages[4 + number].id: error for number, error in failed.failures.items()})
    futures = {message.id: producer.publish_nowait(queue, message) for message in messages[8:]}
    for id, future in futures.items():
        if (refusal := future.exception(bench.patience)) is None:
            ledger.confirm(id)
        else:
            told[id] = refusal
    assert ledger.confirmed, "a queue that takes nothing proves nothing"
    assert {message.id for message in messages} == ledger.confirmed | set(told)
    assert len(told) >= 3, "the broker refused, and not everybody was told"
    assert all(isinstance(error, PublishFailed | InvalidMessage) for error in told.values()), told
    ledger.refused.update(told)
    consumer = bench.consume(queue, broker=broker)
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    ledger.publish_one(broker, queue, ledger.message("z"))
    bench.take(consumer, ledger, ack=True)
    bench.quiet(consumer, ledger)
    ledger.check()
    consumer.close()
    broker.delete(queue)


_ENDS = """
import sys
import messaging
url, name, id, test_id, count = sys.argv[1:]
broker = messaging.connect(url, topology=messaging.Queue(name))
for number in range(int(count)):
    broker.publish_nowait(name, number, id=f"{id}-{number}", headers={"test-id": test_id})
"""


@clause(
    "publish.exit-without-close",
    "A program that ends in order without closing or flushing loses nothing that publish_nowait had taken.",
    anchors=[13, 118],
    failures=[4],
    on=QUEUE,
    controls="remote",
    deadline=150,
)
def test_exit_without_close(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    source, ledger = bench.source(), bench.ledger()
    count = bench.volume(500)
    messages = [ledger.message(number, id=f"{bench.test_id}-ends-{number}") for number in range(count)]
    arguments = (remote, source.destination.name, f"{bench.test_id}-ends", bench.test_id, str(count))
    ended = subprocess.run(
        [sys.executable, "-c", _ENDS, *arguments], check=False, timeout=90, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    ledger.confirm(message.id for message in messages)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()
