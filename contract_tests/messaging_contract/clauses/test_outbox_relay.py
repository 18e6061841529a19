"""Relays: several share the outbox, one crashes, a row cannot be published, one is stopped."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import UUID

from messaging_contract.bench import Bench
from messaging_contract.clause import DATABASE_ALONE, QUEUE, clause

with suppress(ImportError):  # without SQLAlchemy these clauses are not run, and say so
    from sqlalchemy import event, func, select, update

    from messaging_sql.database import now

if TYPE_CHECKING:
    from messaging_contract.sql.scene import Scene

_OTHERS = "bcdefghijk"
"""Keys. With another one, which is held up, some may wait; all of them never do."""


@clause(
    "outbox.one-relay-a-row",
    "A row that one relay is publishing is published by no other.",
    on=QUEUE,
    controls="database",
)
def test_one_relay_a_row(bench: Bench) -> None:
    queue, scene = bench.queue(), bench.scene()
    ids = scene.add(queue, ("a", 1), ("b", 1), ("c", 1))
    with scene.gate() as gate, scene.relay(gate):
        gate.wait()
        with scene.relay() as other:
            scene.rounds_pass(other)
            gate.open()
            scene.published()
    consumer = bench.consume(queue)
    assert sorted(found[2] for found in scene.read(consumer, 3)) == sorted(ids)
    scene.nothing_more(consumer)


@clause(
    "outbox.keys-in-order",
    "Several relays publish the rows of a key in the order in which they were added, and one that stands still holds "
    "no other key up.",
    on=QUEUE,
    needs="ordering",
    controls="database",
)
def test_keys_in_order(bench: Bench) -> None:
    queue, scene = bench.queue(ordered=True), bench.scene()
    consumer = bench.consume(queue)
    scene.add(queue, ("a", 1), ("a", 2), ("a", 3))
    with scene.gate() as gate, scene.relay(gate, batch=1):
        gate.wait()
        scene.add(queue, *((key, 1) for key in _OTHERS))
        with scene.relay() as other:
            bench.eventually(lambda: other.stats.published >= 1, "a row of another key")
            scene.rounds_pass(other)
            meanwhile = scene.read(consumer, other.stats.published)
            gate.open()
            scene.published()
    assert "a" not in {found[0] for found in meanwhile}
    found = meanwhile + scene.read(consumer, 3 + len(_OTHERS) - len(meanwhile))
    assert [each[1] for each in found if each[0] == "a"] == [1, 2, 3]
    assert sorted(str(each[0]) for each in found if each[0] != "a") == list(_OTHERS)
    scene.nothing_more(consumer)


@clause(
    "outbox.crashed-relay",
    "What a relay had in hand when it crashed is published by another, once its lease is over.",
    on=QUEUE,
    controls="database",
)
def test_crashed_relay(bench: Bench) -> None:
    queue, scene = bench.queue(), bench.scene()
    scene.add(queue, ("a", 1), ("b", 1))
    _leased(scene, 60.0)
    with scene.relay() as relay:
        scene.rounds_pass(relay)
        assert scene.waiting() == 2, "a lease that was not over was not respected"
        _leased(scene, -1.0)
        scene.published()
        bench.eventually(lambda: relay.stats.published == 2, "two rows of a crashed relay")


@clause(
    "outbox.failed-row",
    "A row that cannot be published holds the later ones of its key up, and no others; parked after the attempts that "
    "were asked for, it lets them go on.",
    on=QUEUE,
    needs="ordering",
    controls="database",
)
def test_failed_row(bench: Bench) -> None:
    queue, scene = bench.queue(ordered=True), bench.scene()
    consumer = bench.consume(queue)
    ids = scene.add(queue, ("a", 1), ("a", 2), ("b", 1))
    _change(scene, ids[0], headers="no JSON")
    with scene.relay(retry_delay=60.0, park_after=2) as relay:
        bench.eventually(lambda: relay.stats.failed >= 1 and relay.stats.published >= 1, "a row of another key")
        scene.rounds_pass(relay)
    assert [found[:2] for found in scene.read(consumer, 1)] == [("b", 1)]
    scene.nothing_more(consumer)
    _change(scene, ids[0], retry_at=None)
    with scene.relay(park_after=2):
        scene.published()
    with scene.engine.connect() as connection:
        parked = scene.outbox.parked(connection)
    assert [(row.id, row.attempts) for row in parked] == [(ids[0], 2)]
    assert "no message" in parked[0].error
    assert [found[:2] for found in scene.read(consumer, 1)] == [("a", 2)]


@clause(
    "outbox.other-topics-go-on",
    "A destination that confirms nothing holds up its own rows and no others; they are published when it does.",
    on=QUEUE,
    controls="database",
)
def test_other_topics_go_on(bench: Bench) -> None:
    first, second = sorted((bench.queue(), bench.queue()), key=lambda queue: queue.name)
    scene = bench.scene()
    for queue in (first, second):
        scene.add(queue, ("a", 1), ("b", 1))
    for refused in (first, second):  # in whatever order a relay takes them
        broker = scene.refusing(refused)
        with scene.relay(broker, retry_delay=0.05) as relay:
            bench.eventually(lambda: relay.stats.published >= 2, "the rows of the other destination")
            scene.rounds_pass(relay)
            assert scene.waiting() == 2
            broker.mend()
            scene.published()
        assert relay.stats.failed == 0, "the rows were not the cause"
        scene.add(first, ("a", 2), ("b", 2))
        scene.add(second, ("a", 2), ("b", 2))
    with scene.relay():
        scene.published()


@clause(
    "outbox.stop-in-a-batch",
    "A relay that is stopped in a batch ends after what it is publishing: that is taken out, the rest is left for "
    "others, at once and in order.",
    on=QUEUE,
    needs="ordering",
    controls="database",
)
def test_stop_in_a_batch(bench: Bench) -> None:
    queue, scene = bench.queue(ordered=True), bench.scene()
    consumer = bench.consume(queue)
    scene.add(queue, ("a", 1), ("a", 2), ("a", 3))
    with scene.gate() as gate:
        relay = scene.relay(gate)
        relay.start()
        gate.wait()
        relay.request_stop()
        gate.open()
        assert relay.stop(bench.patience), "a relay that was stopped goes on"
    assert scene.waiting() == 2
    lanes = scene.tables.lanes
    with scene.engine.connect() as connection:
        assert connection.scalar(select(func.count()).where(lanes.c.owner.is_not(None))) == 0
    assert [found[:2] for found in scene.read(consumer, 1)] == [("a", 1)]
    with scene.relay():
        scene.published()
    assert [found[:2] for found in scene.read(consumer, 2)] == [("a", 2), ("a", 3)]
    scene.nothing_more(consumer)


@clause(
    "outbox.no-hot-polling",
    "A relay that has nothing to do asks the database as often as it was told, and not all the time.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_no_hot_polling(bench: Bench) -> None:
    scene, statements = bench.scene(), []
    with scene.relay(poll=0.2) as relay:
        scene.rounds_pass(relay, 1)
        event.listen(scene.engine, "before_cursor_execute", lambda *_: statements.append(1))
        Event().wait(1.0)  # not for something: a rate is measured
        asked = len(statements)
    assert 1 <= asked <= 16, f"{asked} statements in a second"  # two a round


@clause(
    "outbox.no-hammering",
    "A row that fails is tried again after the delay that was asked for, and then after twice that.",
    on=(),
    controls=DATABASE_ALONE,
)
def test_no_hammering(bench: Bench) -> None:
    queue, scene = bench.queue(), bench.scene()
    _change(scene, scene.add(queue, ("a", 1))[0], headers="no JSON")
    began = time.monotonic()
    with scene.relay(retry_delay=0.5, park_after=3) as relay:
        bench.eventually(lambda: relay.stats.parked == 1, "a row to be parked")
    assert time.monotonic() - began > 0.5 + 1.0, "three attempts came too soon"


def _change(scene: Scene, message_id: str, **values: Any) -> None:
    """Changes a row, also into something that cannot be published."""
    outbox = scene.tables.outbox
    with scene.engine.begin() as connection:
        connection.execute(update(outbox).where(outbox.c.id == UUID(message_id)).values(**values))


def _leased(scene: Scene, seconds: float) -> None:
    """Leaves every lane to a relay that is no more, for so long."""
    with scene.engine.begin() as connection:
        connection.execute(update(scene.tables.lanes).values(owner="crashed", lease_until=now() + seconds))
