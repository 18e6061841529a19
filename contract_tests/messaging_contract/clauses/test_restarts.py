"""Restarted and frozen brokers, killed processes: what was confirmed is still delivered."""

from __future__ import annotations

import subprocess
import sys
import time
from threading import Event, Thread

from messaging_contract.bench import Bench
from messaging_contract.clause import clause
from messaging_contract.clauses.outage import (
    progress,
    publishing,
    recovery,
    short_leases,
)
from messaging_contract.faults import ChildProcess


@clause(
    "faults.restart",
    "The broker restarts twice while messages are published and consumed: every confirmed one is received.",
    anchors=[140, 144, 147],
    failures=[1, 2],
    controls="restart",
    deadline=400,
)
def test_restart(bench: Bench) -> None:
    restart = bench.harness.restart
    assert restart is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
    ending = Event()

    def consume() -> None:
        while not ending.is_set():
            consumer.ack(ledger.receive(bench.receive(consumer, 50, 0.3)))

    consuming = Thread(target=consume, daemon=True)
    consuming.start()
    try:
        with publishing(broker, source, ledger):
            for _ in range(2):
                progress(bench, ledger, 20, 120)
                restart()
                progress(bench, ledger, 20, 120)
        bench.eventually(lambda: not ledger.missing, "every confirmed message to be received", 3 * bench.patience)
    finally:
        ending.set()
        consuming.join(20)
    assert not consuming.is_alive()
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.restart-keeps-stored",
    "Messages that wait, are delayed or dead-lettered survive a restart of the broker.",
    anchors=[3, 71, 140],
    failures=[29],
    needs="dead_letter",
    controls="restart",
    deadline=240,
)
def test_restart_keeps_stored(bench: Bench) -> None:
    restart = bench.harness.restart
    assert restart is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    dead = bench.ledger("dead")
    with bench.consume(source) as consumer:
        dead.publish_one(bench.broker, source.destination, dead.message())
        bench.one(consumer, dead.view("alive")).reject("no")
        consumer.flush()
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    delays = bench.able.delayed_queue if bench.kind == "queue" else bench.able.delayed_topic
    if delays:
        ledger.publish_one(bench.broker, source.destination, ledger.message(), delay=3.0)
    restart()
    broker = bench.connect()
    bench.take(bench.consume(source, broker=broker), ledger, ack=True, timeout=recovery(bench))
    ledger.check(duplicates=True)
    graveyard = broker.dead_letters(source.destination, source.group)
    bench.take(graveyard, dead, ack=True)
    dead.check(duplicates=True)


@clause(
    "faults.frozen-broker",
    "A broker frozen for some seconds and thawed: publishers and consumers go on, nothing confirmed is lost.",
    anchors=[143],
    failures=[13],
    controls=["pause", "unpause"],
    deadline=240,
)
def test_frozen_broker(bench: Bench) -> None:
    freeze, thaw = bench.harness.pause, bench.harness.unpause
    assert freeze is not None
    assert thaw is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
    with publishing(broker, source, ledger):
        progress(bench, ledger, 5)
        freeze()
        try:
            consumer.ack(ledger.receive(bench.receive(consumer, 10, 2.0)))
        finally:
            thaw()
        progress(bench, ledger, 5)
    bench.take(consumer, ledger, ack=True, timeout=recovery(bench))
    ledger.check(duplicates=True, recovered=True)


_HOLDER = """
import sys, time
import messaging
url, name, group = sys.argv[1:4]
broker = messaging.connect(url)
options = {"lease": 2.0} if broker.capabilities.lease else {}
consumer = broker.subscribe(name, group or None, **options)
held = []
while len(held) < 4:
    held += consumer.receive(4, 1.0)
held[0].ack()
consumer.flush()
print("holding", flush=True)
time.sleep(600)
"""


@clause(
    "faults.killed-consumer",
    "A consumer process that is killed loses nothing: what it had not acked is delivered to another.",
    anchors=[46, 73],
    failures=[5, 6],
    controls="remote",
    deadline=180,
)
def test_killed_consumer(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    source, ledger = bench.source(), bench.ledger()
    group = source.group or ""
    ledger.publish(bench.broker, source.destination, ledger.messages(8, keys=1))
    with ChildProcess(["-c", _HOLDER, remote, source.destination.name, group]) as process:
        process.expect("holding", 2 * bench.patience)
    consumer = bench.consume(source)
    deadline = time.monotonic() + 120
    while len(ledger.missing) > 1 and time.monotonic() < deadline:
        consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.5)))
    assert len(ledger.missing) <= 1, f"{len(ledger.missing)} of 8 missing, though the killed consumer acked only one"


_PUBLISHER = """
import os, sys
import messaging
url, kind, name, id, test_id = sys.argv[1:]
destination = messaging.Queue(name) if kind == "queue" else messaging.Topic(name)
broker = messaging.connect(url, topology=destination)
for number in range(3):
    broker.publish(name, number, key="k", id=f"{id}-{number}", headers={"test-id": test_id})
os._exit(0)
"""


@clause(
    "faults.killed-publisher",
    "What publish returned for is stored, though its process ends right then without closing anything.",
    anchors=[5],
    failures=[2, 4],
    controls="remote",
    deadline=120,
)
def test_killed_publisher(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    source, ledger = bench.source(), bench.ledger()
    messages = [ledger.message(number, key="k", id=f"{bench.test_id}-killed-{number}") for number in range(3)]
    arguments = (remote, bench.kind, source.destination.name, f"{bench.test_id}-killed", bench.test_id)
    subprocess.run([sys.executable, "-c", _PUBLISHER, *arguments], check=True, timeout=90)
    ledger.confirm(message.id for message in messages)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()
