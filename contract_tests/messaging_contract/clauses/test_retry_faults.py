"""Workers killed at each step of a retry, brokers restarted while messages wait: none lost, few twice, none early."""

from __future__ import annotations

import time
from collections import Counter
from threading import Lock
from typing import get_args

from messaging import Consumer, Delivery, RetryPolicy, Worker
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import clause
from messaging_contract.faults import victim
from messaging_contract.ledger import Ledger

_VICTIM = 90.0
"""Seconds for a worker process to start, to get its messages and to be killed."""
_COME_BACK = 120.0
"""Seconds until what a killed process held is somebody else's, on the slowest broker with its default settings."""


def _kill_a_worker(bench: Bench, source: Source, step: victim.Step, count: int, retry: RetryPolicy) -> victim.Story:
    remote = bench.harness.remote
    assert remote is not None
    group = source.group or ""
    return victim.run(remote, source.destination.name, group, step, count, retry, _VICTIM)


def _take_all(bench: Bench, source: Source, consumer: Consumer, ledger: Ledger) -> list[Delivery]:
    """Receives and acks until nothing is missing, waits or is held."""
    found: list[Delivery] = []

    def nothing_left() -> bool:
        own = ledger.receive(bench.receive(consumer, 10, 0.3))
        consumer.ack(own)
        found.extend(own)
        if own or ledger.missing or bench.depth(source):
            return False
        return not bench.able.lag or consumer.lag() == 0

    bench.eventually(nothing_left, lambda: f"every message to be done: {len(ledger.missing)} did not come", _COME_BACK)
    return found


def _killed_worker(bench: Bench, step: victim.Step) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(6, keys=1))
    story = _kill_a_worker(bench, source, step, 4, RetryPolicy(attempts=50, delays=(0.5,)))
    consumer = bench.consume(source)
    found = _take_all(bench, source, consumer, ledger)
    bench.quiet(consumer, ledger)
    ledger.check(duplicates=True)
    unclear = {id for id, _attempt in story.handled} - set(story.settled)
    twice = {id for id, times in Counter(ledger.received).items() if times > 1}
    assert twice <= unclear, f"{twice - unclear} came twice, and the worker was killed with {unclear} in hand"
    assert max(Counter(ledger.received).values()) <= 2, "more than one delivery more for one kill"
    if bench.harness.attempts_kept(bench.kind):
        lowest = {id: min(d.attempt for d in found if d.id == id) for id in ledger.received}
        for id, attempt in story.handled:
            # Settled: the attempt is over, and the next one has the next number.
            assert lowest[id] >= attempt + (id in story.settled), f"attempt {lowest[id]} of {id} after {attempt}"


@clause(
    "faults.killed-while-handling",
    "A worker killed in its handler loses nothing; what it nacked just before comes at most twice, the rest once.",
    anchors=[46, 79],
    failures=[5, 6],
    needs="nack_delay",
    controls="remote",
    deadline=240,
)
def test_killed_while_handling(bench: Bench) -> None:
    _killed_worker(bench, "handling")


@clause(
    "faults.killed-after-nack",
    "A worker killed right after nack returned: what it nacked comes once or twice, never with a lower attempt.",
    anchors=[46, 93],
    failures=[5, 6],
    needs="nack_delay",
    controls="remote",
    deadline=240,
)
def test_killed_after_nack(bench: Bench) -> None:
    _killed_worker(bench, "asked")


@clause(
    "faults.killed-after-flush",
    "A worker killed once its nack was carried out: that message comes exactly once, as the next attempt.",
    anchors=[46, 52, 93],
    failures=[5, 6],
    needs="nack_delay",
    controls="remote",
    deadline=240,
)
def test_killed_after_flush(bench: Bench) -> None:
    _killed_worker(bench, "flushed")


@clause(
    "faults.killed-after-reject",
    "A worker killed right after reject: each message is in its source, its dead-letter queue or both, never gone.",
    anchors=[46, 83],
    failures=[6, 23],
    needs="dead_letter",
    controls="remote",
    deadline=400,
)
def test_killed_after_reject(bench: Bench) -> None:
    steps: tuple[victim.Step, ...] = ("asked", "flushed")
    for step in steps:
        source, ledger = bench.source(), bench.ledger(step)
        ledger.publish(bench.broker, source.destination, ledger.messages(5, keys=1))
        story = _kill_a_worker(bench, source, step, 3, RetryPolicy(attempts=1))
        alive, dead = ledger.view("alive"), ledger.view("dead")
        graveyard = bench.dead_letters(source)
        bench.take(graveyard, dead, ack=True, only=story.settled)
        assert set(story.settled) <= set(dead.received), "reject was carried out, and the dead letter is gone"
        with bench.consume(source) as consumer:
            _until_all_are_somewhere(bench, source, consumer, graveyard, alive, dead)
            bench.quiet(consumer, ledger)
        given_up = {id for id, _attempt in story.handled}
        assert not set(alive.received) & set(story.settled), "reject was carried out, and the message came again"
        assert set(dead.received) <= given_up, "dead-lettered though nobody rejected it"
        for view in (alive, dead):
            assert max(Counter(view.received).values(), default=1) == 1, f"{view.name} has one twice"
        graveyard.close()


def _until_all_are_somewhere(
    bench: Bench, source: Source, consumer: Consumer, graveyard: Consumer, alive: Ledger, dead: Ledger
) -> None:
    def all_found() -> bool:
        for reading, view in ((consumer, alive), (graveyard, dead)):
            reading.ack(view.receive(bench.receive(reading, 10, 0.2)))
        return not alive.missing - set(dead.received) and bench.depth(source) == 0

    bench.eventually(all_found, lambda: f"{alive.missing - set(dead.received)} to be somewhere", _COME_BACK)


@clause(
    "faults.killed-at-every-step",
    "Workers killed in turn, at each step of a retry: in the end every message is handled or dead-lettered.",
    anchors=[46, 80, 150],
    failures=[5, 6, 24],
    needs=["nack_delay", "dead_letter"],
    controls="remote",
    deadline=480,
)
def test_killed_at_every_step(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    good, bad = ledger.messages(2, key="k"), ledger.messages(2, key="k")
    ledger.publish(bench.broker, source.destination, [*good, *bad])
    kills: tuple[victim.Step, ...] = get_args(victim.Step)
    for step in kills:
        _kill_a_worker(bench, source, step, 3, RetryPolicy(attempts=50, delays=(0.2,)))
    handled, lock = ledger.view("handled"), Lock()
    given_up = ledger.view("given up")
    worker = Worker(bench.broker)

    def handle(delivery: Delivery) -> None:
        if delivery.id in {message.id for message in bad}:
            raise RuntimeError("for ever")
        with lock:
            handled.receive([delivery])

    group = source.group
    worker.on(source.destination, group, retry=RetryPolicy(attempts=8, delays=(0.1,)))(handle)
    graveyard = bench.dead_letters(source)
    with worker:

        def done() -> bool:
            graveyard.ack(given_up.receive(bench.receive(graveyard, 10, 0.2)))
            return not (handled.missing - set(given_up.received) or bench.depth(source))

        bench.eventually(done, "every message to be handled or dead-lettered", _COME_BACK)
    counts = Counter([*handled.received, *given_up.received])
    assert {message.id for message in bad} <= set(given_up.received)
    # The broker counts what a killed process held as an attempt: after three kills a good one may be given up, too.
    assert set(counts) == {message.id for message in [*good, *bad]}
    assert max(counts.values()) <= 1 + len(kills), f"more than one delivery more for each kill: {counts}"


@clause(
    "faults.restart-keeps-waiting",
    "The broker restarts while nacked and delayed messages wait for their time: all come, and none early.",
    anchors=[92, 93, 140],
    failures=[1, 29],
    needs="nack_delay",
    controls="restart",
    deadline=300,
)
def test_restart_keeps_waiting(bench: Bench) -> None:
    restart = bench.harness.restart
    assert restart is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker)
    due: dict[str, float] = {}
    attempts: dict[str, int] = {}
    nacked = ledger.messages(4)
    ledger.publish(broker, source.destination, nacked)
    for delivery, delay in zip(bench.take(consumer, ledger.view("first"), 4), (2.0, 2.0, 20.0, 20.0), strict=True):
        due[delivery.id], attempts[delivery.id] = time.monotonic() + delay, 2
        delivery.nack(delay)
    consumer.flush()
    delays = bench.able.delayed_queue if bench.kind == "queue" else bench.able.delayed_topic
    for delay in (2.0, 20.0) if delays else ():
        message = ledger.message()
        due[message.id], attempts[message.id] = time.monotonic() + delay, 1
        ledger.publish_one(broker, source.destination, message, delay=delay)
    restart()
    early: list[str] = []
    deadline = time.monotonic() + 2 * bench.patience + 20.0
    while ledger.missing and time.monotonic() < deadline:
        own = ledger.receive(bench.receive(consumer, 10, 0.3))
        early += [f"{d.id} by {due[d.id] - time.monotonic():.2f} s" for d in own if time.monotonic() < due[d.id] - 0.05]
        if bench.harness.attempts_kept(bench.kind):
            assert [d for d in own if d.attempt < attempts[d.id]] == []
        consumer.ack(own)
    ledger.check(duplicates=True)
    assert not early, f"early: {early}"
    assert max(Counter(ledger.received).values()) <= 2
