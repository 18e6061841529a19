"""Reject and the dead-letter queue: confirmed there before it leaves its source, with its story in the headers."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from threading import Lock
from typing import Any

import pytest

from messaging import BrokerUnavailable, Delivery, Queue, SettleFailed, TopologyError
from messaging.dead_letter import ATTEMPTS, HEADERS, REASON, SOURCE, TIME
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import TOPIC, clause


@clause(
    "dead_letter.content",
    "A rejected message is in the dead-letter queue as it was, with its source, the reason and the attempts.",
    anchors=[43, 80, 82],
    failures=[20, 23],
    needs="dead_letter",
)
def test_content(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    sent = ledger.message({"n": 1}, key="k", type="t.u", headers={"h": "v"}, correlation_id="c", reply_to="r")
    before = time.time()
    ledger.publish_one(bench.broker, source.destination, sent)
    bench.one(consumer, ledger).nack()
    bench.one(consumer, ledger).reject("no good: ü")
    dead = bench.one(bench.dead_letters(source), ledger)
    assert (dead.id, dead.body, dead.key, dead.type) == (sent.id, sent.body, "k", "t.u")
    assert (dead.content_type, dead.correlation_id, dead.reply_to) == (sent.content_type, "c", "r")
    own = {name: value for name, value in dead.headers.items() if name not in HEADERS}
    assert own == dict(sent.headers)
    assert dead.headers[SOURCE] == source.name
    assert dead.headers[REASON] == "no good: ü"
    assert dead.headers[ATTEMPTS] == "2"
    assert before - 1 <= float(dead.headers[TIME]) <= time.time() + 1
    assert dead.attempt == 1
    dead.ack()


@clause(
    "dead_letter.leaves-the-source",
    "A rejected message never comes again from its source, and its source no longer holds it.",
    anchors=[43],
    failures=[20],
    needs="dead_letter",
)
def test_leaves_the_source(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    for delivery in bench.take(consumer, ledger):
        delivery.reject("no")
    consumer.flush()
    bench.eventually(lambda: bench.dead_letter_depth(source) == 3, "three dead letters")
    bench.quiet(consumer, ledger)
    consumer.close()
    bench.quiet(bench.consume(source), ledger)
    bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")


@clause(
    "dead_letter.close-carries-out",
    "Rejects made just before close are carried out: each message is either dead-lettered or still in its source.",
    anchors=[83],
    failures=[6, 23],
    needs="dead_letter",
)
def test_close_carries_out(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(12))
    for delivery in bench.take(consumer, ledger):
        delivery.reject("closing")
    consumer.close()
    view = ledger.view("dead")
    bench.take(bench.dead_letters(source), view, ack=True)
    view.check()
    bench.quiet(bench.consume(source), ledger)


def _short_lease(bench: Bench) -> dict[str, Any]:
    """Where there are leases, what could not be rejected comes again when its lease ends."""
    return {"lease": 2.0} if bench.able.lease else {}


def _delete_dead_letters(bench: Bench, source: Source) -> None:
    bench.broker.delete(Queue(f"{source.name}--dlq", dead_letter=False))


@clause(
    "dead_letter.unavailable",
    "While its dead-letter queue is gone a rejected message stays with its source; once that is there it arrives.",
    anchors=[83],
    failures=[23],
    needs="dead_letter",
    deadline=150,
)
def test_unavailable(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    bench.settlements_may_fail = True
    consumer = bench.consume(source, **_short_lease(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    held = bench.take(consumer, ledger, 3)
    _delete_dead_letters(bench, source)
    for delivery in held:
        delivery.reject("nowhere to go")
    with suppress(SettleFailed, BrokerUnavailable):
        consumer.flush(5.0)
    bench.broker.declare(source.destination)
    graveyard, dead = bench.dead_letters(source), ledger.view("dead")
    deadline = time.monotonic() + 2 * bench.patience
    while dead.missing and time.monotonic() < deadline:
        for again in ledger.receive(bench.receive(consumer, 10, 0.2)):
            again.reject("once more")
        graveyard.ack(dead.receive(bench.receive(graveyard, 10, 0.2)))
    assert not dead.missing, "acked though it could not be dead-lettered, and lost"


@clause(
    "dead_letter.unavailable-at-close",
    "A message rejected while its dead-letter queue is gone is still in its source when its consumer goes away.",
    anchors=[83],
    failures=[23],
    needs="dead_letter",
    deadline=180,
)
def test_unavailable_at_close(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    bench.settlements_may_fail = True
    other = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=other, **_short_lease(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    held = bench.take(consumer, ledger, 3)
    _delete_dead_letters(bench, source)
    for delivery in held:
        delivery.reject("nowhere to go")
    with suppress(SettleFailed, BrokerUnavailable):
        consumer.flush(3.0)
    other.close()
    bench.broker.declare(source.destination)
    second, graveyard = bench.consume(source), bench.dead_letters(source)
    left, dead = ledger.view("left"), ledger.view("dead")

    def found() -> bool:
        for reading, view in ((second, left), (graveyard, dead)):
            reading.ack(view.receive(bench.receive(reading, 10, 0.2)))
        return {delivery.id for delivery in held} <= {*left.received, *dead.received}

    bench.eventually(found, "every rejected message to be somewhere", 2 * bench.patience)


@clause(
    "dead_letter.missing-at-subscribe",
    "A source whose dead-letter queue is gone is consumed all the same. What is rejected stays with it, which an error "
    "of the settlement tells, until that queue is there.",
    anchors=[83],
    failures=[23],
    needs="dead_letter",
    deadline=150,
)
def test_missing_at_subscribe(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    bench.settlements_may_fail = True
    _delete_dead_letters(bench, source)
    consumer = bench.consume(source, **_short_lease(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(2))
    good, bad = bench.take(consumer, ledger, 2)

    def settle(delivery: Delivery) -> None:
        if delivery.id == bad.id:
            delivery.reject("nowhere to go")
        else:  # also when its lease has ended before it was acked
            delivery.ack()

    def is_told() -> bool:
        try:
            consumer.flush(2.0)
            for again in consumer.receive(10, timeout=0.2):
                settle(again)
        except (SettleFailed, BrokerUnavailable):
            return True
        return False

    settle(good)
    settle(bad)
    bench.eventually(is_told, "an error of the settlement")
    bench.broker.declare(source.destination)
    graveyard, dead = bench.dead_letters(source), ledger.view("dead")

    def buried() -> bool:
        for again in bench.receive(consumer, 10, 0.2):
            settle(again)
        graveyard.ack(dead.receive(bench.receive(graveyard, 10, 0.2)))
        return bad.id in dead.received

    bench.eventually(buried, "the rejected message to be in its dead-letter queue", 2 * bench.patience)


@clause(
    "dead_letter.own-group",
    "Each group has its own dead-letter queue; the same message may be rejected by one and handled by another.",
    anchors=[68, 80],
    on=TOPIC,
    needs="dead_letter",
)
def test_own_group(bench: Bench) -> None:
    topic, ledger = bench.topic("good", "bad"), bench.ledger()
    good, bad = bench.consume(topic, "good"), bench.consume(topic, "bad")
    ledger.publish_one(bench.broker, topic, ledger.message())
    bench.one(bad, ledger.view("bad")).reject("not for me")
    view = ledger.view("good")
    bench.take(good, view, ack=True)
    view.check()
    dead = bench.one(bench.dead_letters(topic, "bad"), ledger)
    assert dead.headers[SOURCE] == f"{topic.name}--bad"
    dead.ack()
    assert bench.broker.dead_letter_depth(topic, "good") == 0


@clause(
    "dead_letter.none",
    "Without a dead-letter queue a rejected message is discarded, with a warning in the log.",
    anchors=[43, 84],
    needs="dead_letter",
)
def test_none(bench: Bench) -> None:
    source, ledger = bench.source(dead_letter=False), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    with _Warnings() as warnings:
        bench.one(consumer, ledger).reject("gone")
        consumer.flush()
        bench.eventually(lambda: any(source.name in text for text in warnings.texts), "a warning that names the source")
    bench.quiet(consumer, ledger)
    bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")
    with pytest.raises(TopologyError, match="dead-letter"):
        bench.dead_letters(source)


@clause(
    "dead_letter.is-a-queue",
    "Dead letters are consumed like any queue's: a nack brings one again, an ack ends it.",
    anchors=[80, 91],
    needs="dead_letter",
)
def test_is_a_queue(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.one(consumer, ledger).reject("no")
    graveyard = bench.dead_letters(source)
    first = bench.one(graveyard, ledger)
    first.nack()
    again = bench.one(graveyard, ledger)
    assert (again.id, again.attempt) == (first.id, 2)
    again.ack()
    graveyard.flush()
    bench.quiet(graveyard, ledger)
    bench.eventually(lambda: bench.dead_letter_depth(source) == 0, "no dead letters")


@clause(
    "dead_letter.back-and-again",
    "A dead letter that is published to its source again and fails again has its old story replaced.",
    anchors=[82, 91],
    needs="dead_letter",
)
def test_back_and_again(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer, graveyard = bench.consume(source), bench.dead_letters(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.one(consumer, ledger).reject("first")
    dead = bench.one(graveyard, ledger)
    bench.broker.publish(source.destination, dead.message)
    dead.ack()
    back = bench.one(consumer, ledger)
    assert (back.id, back.attempt) == (dead.id, 1)
    back.reject("second")
    dead = bench.one(graveyard, ledger)
    assert dead.headers[REASON] == "second"
    assert dead.headers[SOURCE] == source.name
    dead.ack()


@clause(
    "dead_letter.does-not-expire",
    "A dead letter stays, though the message it was had a time to live.",
    anchors=[16, 82],
    needs=["dead_letter", "ttl"],
)
def test_does_not_expire(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    message = ledger.message(ttl=bench.seconds(10.0))
    ledger.publish_one(bench.broker, source.destination, message)
    bench.one(consumer, ledger).reject("no")
    expires_at = message.expires_at
    assert expires_at is not None
    bench.eventually(lambda: time.time() > expires_at, "the message to expire", bench.patience + bench.seconds(10.0))
    dead = bench.one(bench.dead_letters(source), ledger)
    assert dead.id == message.id
    dead.ack()


@clause(
    "dead_letter.long-reason",
    "A reason of any length and content arrives, or its beginning; rejecting never fails because of it.",
    anchors=[82],
    needs="dead_letter",
)
def test_long_reason(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer, graveyard = bench.consume(source), bench.dead_letters(source)
    reasons = ["Traceback:\n\tline\r\n" * 200, "", "\x00 control \x1b[31m ü 🚀"]
    messages = ledger.messages(len(reasons))
    by_id = {message.id: reason for message, reason in zip(messages, reasons, strict=True)}
    ledger.publish(bench.broker, source.destination, messages)
    for delivery in bench.take(consumer, ledger):
        delivery.reject(by_id[delivery.id])
    consumer.flush()
    dead = bench.take(graveyard, ledger, len(reasons), ack=True)
    assert {delivery.id for delivery in dead} == set(by_id)
    for delivery in dead:
        assert by_id[delivery.id].startswith(delivery.headers[REASON][:200])


@clause(
    "dead_letter.declared-name",
    "The dead-letter queue can be read by its name, <source>--dlq, without having declared the source.",
    anchors=[80],
    needs="dead_letter",
)
def test_declared_name(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.one(consumer, ledger).reject("no")
    consumer.flush()
    other = bench.connect()
    graveyard = bench.consume(Queue(f"{source.name}--dlq", dead_letter=False), broker=other)
    dead = bench.one(graveyard, ledger)
    assert dead.headers[SOURCE] == source.name
    dead.ack()


class _Warnings(logging.Handler):
    """Collects what is logged at warning level or above. `_guard` guards the texts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._guard = Lock()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        with self._guard:
            self.texts.append(record.getMessage())

    def __enter__(self) -> _Warnings:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_error: object) -> None:
        logging.getLogger().removeHandler(self)
