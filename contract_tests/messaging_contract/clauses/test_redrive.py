"""Dead letters: looked at without harm, and moved back to where they came from and nowhere else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from messaging.dead_letter import REASON
from messaging.dead_letter_queue import Choice, DeadLetterQueue, Redriven
from messaging.errors import ConfigurationError, DestinationNotFound
from messaging.topology import Queue, Source, sources_of
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, TOPIC, clause
from messaging_contract.ledger import Ledger


def _reject(bench: Bench, source: Source, ledger: Ledger, *reasons: str) -> None:
    """Rejects as many messages of `ledger` as there are reasons, whatever their order."""
    waiting = list(reasons)
    with bench.consume(source) as consumer:
        for delivery in bench.take(consumer, ledger, len(reasons)):
            delivery.reject(waiting.pop(0))
        consumer.flush()


def _dead_letters(bench: Bench, source: Source) -> DeadLetterQueue:
    letters = bench.broker.dead_letter_queue(source.destination, source.group)
    bench.eventually(lambda: letters.depth() > 0, "the dead letters to be there")
    return letters


@clause(
    "redrive.as-it-was",
    "A redriven message is again what it was before it failed: same id, key, type, headers and body, at attempt 1.",
    anchors=[91],
    needs="dead_letter",
)
def test_as_it_was(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    sent = ledger.message({"n": 1}, key="k", type="t.u", headers={"h": "v"}, correlation_id="c", reply_to="r")
    before = time.time()
    ledger.publish_one(bench.broker, source.destination, sent)
    published = time.time()
    _reject(bench, source, ledger, "no good")
    result = _dead_letters(bench, source).redrive()
    assert (result.moved, result.failed, result.passed_over) == (1, [], 0)
    with bench.consume(source) as consumer:
        back = bench.one(consumer, ledger)
        assert (back.id, back.body, back.key, back.type) == (sent.id, sent.body, "k", "t.u")
        assert (back.content_type, back.correlation_id, back.reply_to) == (sent.content_type, "c", "r")
        assert dict(back.headers) == dict(sent.headers)
        assert before - 0.002 <= back.timestamp <= published + 0.002
        assert back.attempt == 1
        back.ack()
    bench.quiet(bench.dead_letters(source), ledger)


@clause(
    "redrive.origin-only",
    "A redrive brings a message back to the subscription that gave it up, and to no other group of the topic.",
    anchors=[91],
    failures=[23],
    on=TOPIC,
    needs="dead_letter",
)
def test_origin_only(bench: Bench) -> None:
    bad, good = sources_of(bench.topic("bad", "good"))
    ledger = bench.ledger()
    handler = bench.consume(good)
    ledger.publish(bench.broker, bad.destination, ledger.messages(3))
    _reject(bench, bad, ledger.view("bad"), "a", "b", "c")
    bench.take(handler, ledger.view("good"), 3, ack=True)
    assert _dead_letters(bench, bad).redrive().moved == 3
    back = ledger.view("back")
    with bench.consume(bad) as consumer:
        bench.take(consumer, back, 3, ack=True)
    back.check()
    bench.quiet(handler, ledger)


@clause(
    "redrive.keeps-order",
    "Dead letters of one key of an ordered source come back in the order in which they were given up.",
    anchors=[91],
    needs=["dead_letter", "ordering"],
)
def test_keeps_order(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    messages = [ledger.message({"n": n}, key="k") for n in range(12)]
    ledger.publish(bench.broker, source.destination, messages)
    with bench.consume(source) as consumer:
        for _ in messages:
            bench.one(consumer, ledger).reject("no good")
        consumer.flush()
    assert _dead_letters(bench, source).redrive().moved == 12
    back = ledger.view("back")
    with bench.consume(source) as consumer:
        came = []
        for _ in messages:
            delivery = bench.one(consumer, back)
            came.append(delivery.id)
            delivery.ack()
    assert came == [message.id for message in messages]


@clause(
    "redrive.fails-again",
    "A redriven message that fails again is dead-lettered again; a redrive ends though they come back at once.",
    anchors=[91],
    on=QUEUE,
    needs="dead_letter",
)
def test_fails_again(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    _reject(bench, source, ledger, "a", "a", "a")
    letters = _dead_letters(bench, source)
    assert letters.redrive().moved == 3
    _reject(bench, source, ledger.view("again"), "b", "b", "b")
    bench.eventually(lambda: letters.depth() == 3, "three dead letters")
    assert {letter.reason for letter in letters.peek()} == {"b"}


@clause(
    "redrive.again-without-a-time",
    "A dead letter that does not tell when it was given up, as the broker's own, is moved as often as it comes back, "
    "also with a ledger that knows it.",
    anchors=[91],
    failures=[23],
    on=QUEUE,
    needs="dead_letter",
)
def test_again_without_a_time(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    message = ledger.message()
    letters = bench.broker.dead_letter_queue(source.destination, source.group)
    with TemporaryDirectory() as folder:
        for round_ in ("first", "second"):
            ledger.publish_one(bench.broker, Queue(letters.name, dead_letter=False), message)
            bench.eventually(lambda: letters.depth() == 1, "the dead letter to be there")
            assert letters.redrive(ledger=Path(folder) / "ledger").moved == 1, f"the {round_} time it was not moved"
            with bench.consume(source) as consumer:
                bench.one(consumer, ledger.view(round_)).ack()


@clause(
    "redrive.chosen",
    "Only the dead letters that were chosen, by error, header, id and age, are moved; the others stay.",
    anchors=[91],
    on=QUEUE,
    needs="dead_letter",
)
def test_chosen(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    red, blue = ledger.message(headers={"colour": "red"}), ledger.message(headers={"colour": "blue"})
    ledger.publish(bench.broker, source.destination, [red, blue])
    with bench.consume(source) as consumer:
        for delivery in bench.take(consumer, ledger, 2):
            delivery.reject("bad colour", error=ValueError("x") if delivery.id == red.id else "KeyError")
        consumer.flush()
    letters = _dead_letters(bench, source)
    for nobody in (
        Choice(error="TypeError"),
        Choice(headers={"colour": "green"}),
        Choice(ids=["?"]),
        Choice(older_than=3600),
        Choice(error="ValueError", ids=[blue.id]),
    ):
        result = letters.redrive(nobody)
        assert (result.moved, result.passed_over) == (0, 2), nobody
    assert letters.redrive(Choice(error="^ValueError", headers={"colour": "red"}, newer_than=3600)).moved == 1
    with bench.consume(source) as consumer:
        assert bench.one(consumer, ledger.view("back")).id == red.id
    (left,) = letters.peek()
    assert (left.id, left.error, left.reason, left.attempts) == (blue.id, "KeyError", "bad colour", 1)


@clause(
    "redrive.dry-run",
    "A dry run says how many it would be, and leaves everything as it is.",
    anchors=[91],
    on=QUEUE,
    needs="dead_letter",
)
def test_dry_run(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    _reject(bench, source, ledger, "a", "a", "a")
    letters = _dead_letters(bench, source)
    assert letters.redrive(dry_run=True).moved == 3
    bench.eventually(lambda: letters.depth() == 3, "three dead letters")
    bench.quiet(bench.consume(source), ledger)


@clause(
    "redrive.peek-leaves",
    "Looking at dead letters leaves each in its queue, whole, for whoever consumes it next.",
    anchors=[82, 91],
    needs="dead_letter",
)
def test_peek_leaves(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    sent = ledger.message({"n": 1}, headers={"h": "v"})
    before = time.time()
    ledger.publish_one(bench.broker, source.destination, sent)
    _reject(bench, source, ledger, "no good")
    (seen,) = _dead_letters(bench, source).peek()
    assert (seen.id, seen.source, seen.reason, seen.attempts) == (sent.id, source.name, "no good", 1)
    assert (seen.body, dict(seen.headers)) == (sent.body, dict(sent.headers))
    assert seen.time is not None
    assert before - 1 <= seen.time <= time.time() + 1
    dead = bench.one(bench.dead_letters(source), ledger)
    assert dead.headers[REASON] == "no good"
    dead.ack()


@clause(
    "redrive.purge-chosen",
    "Purging dead letters drops those that were chosen, and only those.",
    on=QUEUE,
    needs="dead_letter",
)
def test_purge_chosen(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    messages = ledger.messages(3)
    ledger.publish(bench.broker, source.destination, messages)
    _reject(bench, source, ledger, "a", "a", "a")
    letters = _dead_letters(bench, source)
    assert letters.purge(Choice(ids=[messages[1].id])) == 1
    bench.eventually(lambda: letters.depth() == 2, "two dead letters")
    assert {letter.id for letter in letters.peek()} == {messages[0].id, messages[2].id}


@clause(
    "redrive.origin-gone",
    "When the queue they came from is gone the redrive says so, and the dead letters stay.",
    anchors=[91],
    on=QUEUE,
    needs="dead_letter",
)
def test_origin_gone(bench: Bench) -> None:
    ledger = bench.ledger()
    origin = Queue(bench.name())
    dead = Queue(f"{origin.name}--dlq", dead_letter=False)
    ledger.publish(bench.broker, dead, ledger.messages(2))
    with pytest.raises(DestinationNotFound):
        bench.connect(create=False).dead_letter_queue(origin).redrive()
    bench.take(bench.consume(dead), ledger, 2, ack=True)


@clause(
    "redrive.refused",
    "A dead letter whose copy the broker refuses in the midst of a redrive is told, and stays.",
    anchors=[91, 79],
    on=QUEUE,
    needs="dead_letter",
    deadline=180,
)
def test_refused(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(4))
    _reject(bench, source, ledger, *"aaaa")
    letters = _dead_letters(bench, source)
    bench.eventually(lambda: letters.depth() == 4, "4 dead letters")
    gone: list[int] = []

    def take_away(progress: Redriven) -> None:
        if progress.moved and not gone:
            gone.append(progress.moved)
            bench.broker.delete(Queue(source.name, dead_letter=False))

    result = letters.redrive(rate=1, on_progress=take_away)
    assert (gone, result.moved, len(result.failed)) == ([1], 1, 3)
    bench.broker.declare(source.destination)
    bench.take(bench.dead_letters(source), ledger.view("left"), 3, ack=True)


_REDRIVE = """
import os, signal, sys
import messaging
url, name, ledger = sys.argv[1:]
messaging.Delivery.ack = lambda _delivery: os.kill(os.getpid(), signal.SIGKILL)
messaging.connect(url).dead_letter_queue(messaging.Queue(name)).redrive(ledger=ledger)
"""


@clause(
    "redrive.killed",
    "A redrive that was cut short between storing and taking out goes on by its ledger: none lost, none moved twice.",
    anchors=[91],
    failures=[23],
    on=QUEUE,
    needs="dead_letter",
    controls="remote",
    deadline=240,
)
def test_killed(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    _reject(bench, source, ledger, *"aaaaa")
    letters = _dead_letters(bench, source)
    with TemporaryDirectory() as directory:
        file = str(Path(directory) / "ledger")
        process = subprocess.run(
            [sys.executable, "-c", _REDRIVE, remote, source.name, file], timeout=90, capture_output=True, check=False
        )
        assert process.returncode == -signal.SIGKILL, process.stderr.decode()
        moved = already = 0
        deadline = time.monotonic() + 120  # the broker may have to notice first that the process is gone
        while moved + already < 5 and time.monotonic() < deadline:
            result = letters.redrive(ledger=file)
            moved, already = moved + result.moved, already + result.already
        assert moved + already == 5
        assert already > 0
        with pytest.raises(ConfigurationError, match="another file"):
            bench.broker.dead_letter_queue(bench.queue()).redrive(ledger=file)
    back = ledger.view("back")
    with bench.consume(source) as consumer:
        bench.take(consumer, back, 5, ack=True)
        bench.quiet(consumer, ledger)
    back.check()
    bench.eventually(lambda: letters.depth() == 0, "no dead letter")
