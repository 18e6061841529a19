"""The inbox: a message that comes again has no second effect."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

from messaging import Message
from messaging_contract.bench import Bench
from messaging_contract.clause import DATABASE_ALONE, QUEUE, clause

with suppress(ImportError):  # without SQLAlchemy these clauses are not run, and say so
    from sqlalchemy import Column, Integer, String, func, insert, select


@clause(
    "inbox.redelivered",
    "A message that is published again, or comes again because its consumer died between commit and ack, has its "
    "effect once.",
    controls="database",
)
def test_redelivered(bench: Bench) -> None:
    source, scene = bench.source(), bench.scene()
    consumer, inbox = bench.consume(source), scene.inbox("payment")
    effects = scene.table("effects", Column("number", Integer, primary_key=True), Column("id", String(255)))
    ids = {f"{bench.test_id}-{number}" for number in range(3)}
    for _again in range(2):  # as a relay does that crashed before it could take them out
        for id in sorted(ids):
            bench.broker.publish(source.destination, Message(b"pay", key=id, id=id))
    came: Counter[str] = Counter()

    def handled() -> bool:
        for delivery in consumer.receive(10, 0.2):
            with scene.engine.begin() as connection:
                if inbox.first_time(connection, delivery):
                    connection.execute(insert(effects).values(id=delivery.id))
            came[delivery.id] += 1
            if came[delivery.id] == 1:
                delivery.nack()  # as after a crash before the ack
            else:
                delivery.ack()
        return all(came[id] >= 3 for id in ids)

    bench.eventually(handled, lambda: f"each of three messages three times, not {dict(came)}")
    with scene.engine.connect() as connection:
        counts = connection.execute(select(effects.c.id, func.count()).group_by(effects.c.id)).all()
    assert {(row[0], row[1]) for row in counts} == {(id, 1) for id in ids}


@clause(
    "inbox.rolled-back",
    "A message whose effect was rolled back was not handled: when it comes again it has its effect.",
    on=QUEUE,
    controls="database",
)
def test_rolled_back(bench: Bench) -> None:
    queue, scene, ledger = bench.queue(), bench.scene(), bench.ledger()
    consumer, inbox = bench.consume(queue), scene.inbox("payment")
    ledger.publish(bench.broker, queue, ledger.messages(1))
    first = bench.one(consumer, ledger)
    with scene.engine.connect() as connection, connection.begin() as transaction:
        assert inbox.first_time(connection, first)
        transaction.rollback()
    first.nack()
    again = bench.one(consumer, ledger)
    with scene.engine.begin() as connection:
        assert inbox.first_time(connection, again), "what was rolled back counts as handled"
    again.ack()


@clause(
    "inbox.first-time",
    "A message is new to a subscriber once, as soon as the transaction that handled it is committed.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_first_time(bench: Bench) -> None:
    scene, answers = bench.scene(), []
    for id in ("1", "2", "1", "2"):
        with scene.engine.begin() as connection:
            answers.append(scene.inbox("payment").first_time(connection, id))
    assert answers == [True, True, False, False]


@clause("inbox.own-memory", "Each subscriber has a memory of its own.", on=(), controls=DATABASE_ALONE)
def test_own_memory(bench: Bench) -> None:
    scene = bench.scene()
    with scene.engine.begin() as connection:
        assert scene.inbox("payment").first_time(connection, "1")
        assert scene.inbox("shipping").first_time(connection, "1"), "two subscribers share a memory"


@clause(
    "inbox.two-at-once",
    "Of two that handle the same message at once, the second waits for the first, and is told that it came before.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_two_at_once(bench: Bench) -> None:
    scene, began = bench.scene(), Event()

    def second() -> bool:
        began.set()
        with scene.engine.begin() as connection:
            return scene.inbox("payment").first_time(connection, "1")

    with ThreadPoolExecutor(1) as pool:
        with scene.engine.begin() as connection:
            assert scene.inbox("payment").first_time(connection, "1")
            other = pool.submit(second)
            assert began.wait(10)
            Event().wait(0.2)  # long enough that one which does not wait for the first has its answer
        assert not other.result(10), "both were the first"
