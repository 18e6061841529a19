"""The worker: retries under a policy, dead letters at the end of it, and an orderly stop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from threading import Condition, Event, Lock

import pytest

from messaging import ConfigurationError, Delivery, RetryPolicy, Unavailable, UnsupportedCapability, Worker
from messaging.dead_letter import ATTEMPTS, ERROR, FIRST_TIME, REASON, TIME
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.clauses.handlers import AT_ONCE, Failing, worker_for


@clause(
    "retry.succeeds-later",
    "A handler that fails twice and then succeeds is called for attempts 1, 2 and 3, and the message is done.",
    anchors=[50, 79],
)
def test_succeeds_later(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda delivery: delivery.attempt < 3)
    message = ledger.message()
    with worker_for(bench, source, handler, retry=AT_ONCE):
        ledger.publish_one(bench.broker, source.destination, message)
        bench.eventually(lambda: bool(handler.done), "the handler to succeed")
    assert handler.attempts == {message.id: [1, 2, 3]}
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "retry.exhausted",
    "A message that fails as often as the policy allows is in the dead-letter queue, and gone from its source.",
    anchors=[80, 82, 90],
    failures=[23],
    needs="dead_letter",
)
def test_exhausted(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda _delivery: True)
    message = ledger.message({"poison": True}, headers={"h": "v"})
    before = time.time()
    with worker_for(bench, source, handler, retry=RetryPolicy(attempts=3, delays=(0.0,))):
        ledger.publish_one(bench.broker, source.destination, message)
        dead = bench.one(bench.dead_letters(source), ledger)
    assert handler.attempts == {message.id: [1, 2, 3]}
    assert (dead.id, dead.value, dead.headers["h"]) == (message.id, {"poison": True}, "v")
    assert dead.headers[ATTEMPTS] == "3"
    assert dead.headers[ERROR] == "RuntimeError"
    assert "RuntimeError" in dead.headers[REASON]
    assert before - 1 <= float(dead.headers[FIRST_TIME]) <= float(dead.headers[TIME]) <= time.time() + 1
    dead.ack()
    bench.quiet(bench.consume(source), ledger)
    bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")


@clause(
    "retry.outage",
    "What fails because something else is down is handled again beyond the policy's attempts, until it succeeds.",
    anchors=[79],
    needs="nack_delay",
)
def test_outage(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda delivery: delivery.attempt < 4, Unavailable)
    message = ledger.message()
    with worker_for(bench, source, handler, retry=RetryPolicy(attempts=2, delays=(0.0,))):
        ledger.publish_one(bench.broker, source.destination, message)
        bench.eventually(lambda: bool(handler.done), "the handler to succeed after the outage")
    assert handler.attempts == {message.id: [1, 2, 3, 4]}
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0
    ledger.check()


@clause(
    "retry.never",
    "An error type that is not to be retried, a kind of it, and a body that cannot be decoded are dead-lettered at "
    "attempt 1.",
    anchors=[81, 85, 109],
    failures=[24],
    needs="dead_letter",
)
def test_never(bench: Bench) -> None:
    class NotOnSundays(PermissionError):
        pass

    source, ledger = bench.source(), bench.ledger()
    handled = []

    def handle(delivery: Delivery) -> None:
        handled.append(delivery.id)
        if delivery.value == "forbidden":
            raise PermissionError("never allowed")
        if delivery.value == "forbidden, as a kind of it":
            raise NotOnSundays("never allowed")

    policy = RetryPolicy(attempts=5, delays=(0.0,), never=(*RetryPolicy().never, PermissionError))
    wrong = [ledger.message("forbidden"), ledger.message("forbidden, as a kind of it")]
    wrong.append(ledger.message(b"{broken", content_type="application/json"))
    fine = ledger.message("fine")
    with worker_for(bench, source, handle, retry=policy):
        ledger.publish(bench.broker, source.destination, [*wrong, fine])
        dead = bench.take(bench.dead_letters(source), ledger, 3, ack=True)
        bench.eventually(lambda: fine.id in handled, "the good message to be handled")
    assert {delivery.id for delivery in dead} == {message.id for message in wrong}
    assert {delivery.headers[ATTEMPTS] for delivery in dead} == {"1"}
    assert sorted(handled) == sorted([*(message.id for message in wrong), fine.id])


@clause(
    "retry.back-off",
    "Retries follow the delays of the policy, never earlier.",
    anchors=[87, 93],
    on=QUEUE,
    needs="nack_delay",
)
def test_back_off(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda delivery: delivery.attempt < 3)
    message = ledger.message()
    delays = (bench.seconds(0.3), bench.seconds(1.19))
    with worker_for(bench, source, handler, retry=RetryPolicy(attempts=5, delays=delays)):
        ledger.publish_one(bench.broker, source.destination, message)
        bench.eventually(lambda: bool(handler.done), "the handler to succeed")
    first, second, third = handler.times[message.id]
    assert second - first >= delays[0] * 0.99
    assert third - second >= delays[1] * 0.99


@clause(
    "retry.delay-refused-at-start",
    "A worker whose policy has a delay that nack would refuse does not start; one whose delays nack takes does.",
    anchors=[95],
    needs="nack_delay",
)
def test_delay_refused_at_start(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handled: list[Delivery] = []
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    delays = (1.0, 60.0, 13 * 3600.0, 400 * 86400.0)
    taken: list[float] = []
    with bench.consume(source) as consumer:
        for delay in delays:
            delivery = bench.one(consumer, ledger.view(f"{delay:g}"))
            if _takes(delivery, delay):
                taken.append(delay)
                ledger.publish_one(bench.broker, source.destination, ledger.message())
            else:
                delivery.nack()
    for delay in delays:
        worker, before = Worker(bench.broker), len(handled)
        worker.on(source.destination, source.group, retry=RetryPolicy(attempts=3, delays=(0.0, delay)))(handled.append)
        try:
            worker.start()
            assert delay in taken, f"a delay of {delay:g} s, which nack refuses, was not refused"
        except UnsupportedCapability:
            assert delay not in taken, f"a delay of {delay:g} s, which nack takes, was refused"
            assert len(handled) == before
        finally:
            worker.stop()
    assert 1.0 in taken
    never_again = Worker(bench.broker)  # settled before it is handled: its delays mean nothing
    never_again.on(
        source.destination, source.group, delivery="at-most-once", retry=RetryPolicy(attempts=3, delays=delays)
    )(handled.append)
    with never_again:
        pass


@clause(
    "retry.ordered-delays-together",
    "A worker on an ordered source does not start when the delays of its policy come to more than nack would take, "
    "since the message waits in its lane through all of them.",
    needs="ordering",
)
def test_ordered_delays_together(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    delays = (60.0, 3600.0, 13 * 3600.0, 400 * 86400.0)
    taken = []
    with bench.consume(source) as consumer:
        for delay in delays:
            ledger.publish_one(bench.broker, source.destination, ledger.message(key=f"{delay:g}"))
            if _takes(bench.one(consumer, ledger.view(f"{delay:g}")), delay):
                taken.append(delay)
    assert 60.0 in taken
    for delay in delays:
        worker = Worker(bench.broker)
        policy = RetryPolicy(attempts=5, delays=(delay / 4,), keep_order=True)
        worker.on(source.destination, source.group, retry=policy)(lambda _delivery: None)
        try:
            worker.start()
            assert delay in taken, f"delays that come to {delay:g} s, which nack refuses, were not refused"
        except UnsupportedCapability:
            assert delay not in taken, f"delays that come to {delay:g} s, which nack takes, were refused"
        finally:
            worker.stop()


def _takes(delivery: Delivery, delay: float) -> bool:
    try:
        delivery.nack(delay=delay)
    except UnsupportedCapability:
        return False
    return True


@clause(
    "retry.others-go-on",
    "A message that fails and waits for its retry does not stop the others.",
    anchors=[88],
    failures=[24],
    needs="nack_delay",
)
def test_others_go_on(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    poison, *others = ledger.messages(8)
    handler = Failing(ledger, lambda delivery: delivery.id == poison.id)
    longer_than_anybody_waits = RetryPolicy(attempts=3, delays=(4 * bench.patience,))
    with worker_for(bench, source, handler, retry=longer_than_anybody_waits):
        ledger.publish_one(bench.broker, source.destination, poison)
        bench.eventually(lambda: poison.id in handler.attempts, "the first message to fail")
        ledger.publish(bench.broker, source.destination, others)
        bench.eventually(lambda: ledger.missing == {poison.id}, "all the others to be handled")
    assert handler.attempts[poison.id] == [1]
    ledger.check(only=[message.id for message in others])


@clause(
    "retry.keeps-order",
    "No later message of a key is handled before a failed one has succeeded or is given up, though that waits; "
    "other keys go on.",
    anchors=[48, 65, 88, 93],
    failures=[22, 24],
    needs=["ordering", "nack_delay", "dead_letter"],
)
def test_keeps_order(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    messages = ledger.messages(12, keys=3)
    failing, poison = messages[0], messages[1]
    free = {message.id for message in messages if message.key == "k2"}
    handled: list[tuple[str, str]] = []
    went_on: list[bool] = []
    changed = Condition()

    def handle(delivery: Delivery) -> None:
        with changed:
            handled.append((delivery.key or "", delivery.id))
            if delivery.id == poison.id or (delivery.id == failing.id and delivery.attempt < 3):
                raise RuntimeError("told to fail")
            if delivery.id == failing.id:  # its key is held up until now, and the third is not
                went_on.append(changed.wait_for(lambda: not free, bench.patience))
            ledger.receive([delivery])
            free.discard(delivery.id)
            changed.notify_all()

    wait = bench.seconds(1.0)
    policy = RetryPolicy(attempts=3, delays=(wait,), keep_order=True)
    ledger.publish(bench.broker, source.destination, messages)
    with worker_for(bench, source, handle, retry=policy, concurrency=4):
        bench.eventually(lambda: ledger.missing == {poison.id}, "all but one to be handled")
        bench.eventually(lambda: bench.dead_letter_depth(source) == 1, "one dead letter")
    for number, key in enumerate(("k0", "k1", "k2")):
        ids = [message.id for message in messages if message.key == key]
        repeated = [ids[0]] * (3 if number < 2 else 1) + ids[1:]
        assert [id for of, id in handled if of == key] == repeated, f"{key}: {handled}"
    assert went_on == [True], "the third key waited"


@clause(
    "retry.keeps-order-in-a-takeover",
    "When a worker stops while a failed message waits, the next one begins the key with that message.",
    anchors=[46, 48, 65],
    failures=[22],
    needs=["ordering", "nack_delay"],
)
def test_keeps_order_in_a_takeover(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    messages = ledger.messages(5, keys=1)
    handler = Failing(ledger, lambda delivery: delivery.id == messages[1].id)
    policy = RetryPolicy(attempts=3, delays=(4 * bench.patience,), keep_order=True)
    ledger.publish(bench.broker, source.destination, messages)
    with worker_for(bench, source, handler, retry=policy):
        bench.eventually(lambda: messages[1].id in handler.attempts, "the second message to fail")
    assert set(handler.done) == {messages[0].id}
    view = ledger.view("second")
    second = Failing(view, lambda _delivery: False)
    due = {message.id for message in messages[1:]}
    with worker_for(bench, source, second, retry=policy):
        bench.eventually(lambda: due <= set(second.done), "the others to be handled")
    assert [id for id in second.attempts if id in due] == [message.id for message in messages[1:]]


@clause(
    "retry.order-refused",
    "A policy that has to keep the order is refused at registration where the destination is not ordered.",
    anchors=[48],
    failures=[22],
)
def test_order_refused(bench: Bench) -> None:
    source = bench.source()
    worker = Worker(bench.broker)
    group = source.group
    for destination in (source.destination, source.destination.name, bench.name()):
        with pytest.raises(ConfigurationError, match="keep_order"):
            worker.on(destination, group, retry=RetryPolicy(keep_order=True))(print)
    assert not worker.registrations


@clause(
    "retry.periodic-errors",
    "With a handler that fails every third call nothing is lost and nothing done twice.",
    anchors=[150, 58],
)
def test_periodic_errors(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    calls = iter(range(1, 10_000))
    handler = Failing(ledger, lambda _delivery: next(calls) % 3 == 0)
    with worker_for(bench, source, handler, retry=RetryPolicy(attempts=30, delays=(0.0,)), concurrency=4):
        ledger.publish(bench.broker, source.destination, ledger.messages(30, keys=10))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "retry.one-settlement",
    "A handler that settles the message itself has the last word, also when it then fails.",
    anchors=[44, 50],
    on=QUEUE,
)
def test_one_settlement(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    acked, nacked = ledger.message("ack"), ledger.message("nack")
    calls: Counter[str] = Counter()

    def handle(delivery: Delivery) -> None:
        calls[delivery.id] += 1
        if delivery.value == "ack":
            delivery.ack()
            raise RuntimeError("after the ack")
        if delivery.attempt == 1:
            delivery.nack()
        ledger.receive([delivery])

    with worker_for(bench, source, handle, retry=AT_ONCE):
        ledger.publish(bench.broker, source.destination, [acked, nacked])
        bench.eventually(lambda: calls[acked.id] == 1, "the acked message to be handled")
        bench.eventually(lambda: calls[nacked.id] == 2, "the nacked message to be handled again")
    bench.quiet(bench.consume(source), ledger)
    assert calls == {acked.id: 1, nacked.id: 2}


@clause(
    "retry.concurrency",
    "A worker handles as many messages at a time as it was told, and never more.",
    anchors=[27],
)
def test_concurrency(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    running, most = 0, 0
    lock, three = Lock(), Event()

    def handle(delivery: Delivery) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                three.set()
        three.wait(20)
        with lock:
            running -= 1
        ledger.receive([delivery])

    with worker_for(bench, source, handle, concurrency=3):
        ledger.publish(bench.broker, source.destination, ledger.messages(9, keys=9))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    assert most == 3
    ledger.check()


@clause(
    "retry.keys-in-order",
    "With many handlers at a time the messages of a key are still handled one after the other, in order.",
    anchors=[48, 62],
    failures=[22],
    needs="ordering",
)
def test_keys_in_order(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    running: set[str | None] = set()
    overlaps: list[str] = []
    calls = iter(range(1, 10_000))

    def handle(delivery: Delivery) -> None:
        if delivery.key in running:
            overlaps.append(delivery.id)
        running.add(delivery.key)
        try:
            time.sleep(0.003)  # long enough for another handler of the key to be seen, if there were one
            if next(calls) % 5 == 0:
                raise RuntimeError("now and then")
            ledger.receive([delivery])
        finally:
            running.discard(delivery.key)

    with worker_for(bench, source, handle, retry=RetryPolicy(attempts=30, delays=(0.0,)), concurrency=4):
        ledger.publish(bench.broker, source.destination, ledger.messages(30, keys=5))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    assert not overlaps
    ledger.check(ordered=True)


@clause(
    "retry.async-handler", "Coroutine handlers run concurrently and are retried like others.", anchors=[79], on=QUEUE
)
def test_async_handler(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    together = 0

    async def handle(delivery: Delivery) -> None:
        nonlocal together
        together += 1
        while together < 3:
            await asyncio.sleep(0.01)
        if delivery.attempt == 1:
            raise RuntimeError("once")
        ledger.receive([delivery])

    with worker_for(bench, source, handle, retry=AT_ONCE, concurrency=3):
        ledger.publish(bench.broker, source.destination, ledger.messages(3, keys=3))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    ledger.check()


@clause(
    "retry.at-most-once",
    "With at-most-once a worker settles each message before its handler runs: one that fails is not tried again.",
    anchors=[50, 61],
    on=QUEUE,
)
def test_at_most_once(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda _delivery: True)
    messages = ledger.messages(3)
    with worker_for(bench, source, handler, retry=AT_ONCE, delivery="at-most-once"):
        ledger.publish(bench.broker, source.destination, messages)
        bench.eventually(lambda: len(handler.attempts) == 3, "every message to be handled")
        bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")
    bench.quiet(bench.consume(source), ledger)
    assert handler.attempts == {message.id: [1] for message in messages}
