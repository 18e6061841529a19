"""Leases: a message that is held too long is given to others, and extending the lease prevents it."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest

from messaging import LeaseLost, SettleFailed, UnsupportedCapability
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause


def _lease(bench: Bench) -> float:
    """Seconds of a lease that is to be kept: more than the machine may stall between two lines of a clause."""
    return max(1.0, bench.seconds(3.0))


@clause(
    "settle.lease-expires",
    "A message held beyond its lease is given to somebody else; until then nobody else sees it.",
    anchors=[53],
    failures=[19],
    needs="lease",
)
def test_lease_expires(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    lease = bench.seconds(1.0)
    slow = bench.consume(source, lease=lease, heartbeat=False)
    before = time.monotonic()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    held = bench.one(slow, ledger)
    slow.pause()  # else it competes with the other one for what it let lapse
    other = bench.consume(source)
    again = bench.one(other, ledger)
    assert time.monotonic() - before >= lease, "another consumer got it while it was leased"
    assert again.id == held.id
    try:
        held.ack()
        slow.flush()
    except (LeaseLost, SettleFailed):
        pass
    again.ack()
    bench.quiet(other, ledger)


@clause(
    "settle.lease-frees-prefetch",
    "A message whose lease ran out frees its place in the prefetch: the consumer that forgot it can get it again.",
    anchors=[53],
    failures=[19, 20],
    needs="lease",
)
def test_lease_frees_prefetch(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, prefetch=1, lease=1.0, heartbeat=False)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    first = bench.one(consumer, ledger)
    again = bench.one(consumer, ledger)
    assert again.id == first.id
    assert again.attempt > first.attempt
    again.ack()


@clause(
    "settle.extend",
    "extend keeps the lease: nobody else gets the message meanwhile.",
    anchors=[53],
    failures=[19],
    needs="lease",
)
def test_extend(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    lease = _lease(bench)
    slow = bench.consume(source, lease=lease, heartbeat=False)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    held = bench.one(slow, ledger)
    held.extend(10 * lease)
    other = bench.consume(source)
    bench.quiet(other, ledger, lease + bench.seconds(1.5))
    held.ack()
    slow.flush()
    bench.quiet(other, ledger)


@clause(
    "settle.extend-above-maximum",
    "A lease longer than the broker can keep is refused with UnsupportedCapability, and nothing is settled by it.",
    anchors=[54],
    needs="lease",
)
def test_extend_above_maximum(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    long = 100_000_000.0  # three years: SQS keeps a message for 12 hours, memory for as long as it lives
    try:
        bench.consume(source, lease=long).close()
        refused = False
    except UnsupportedCapability:
        refused = True
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    held = bench.one(consumer, ledger)
    with pytest.raises(UnsupportedCapability) if refused else nullcontext():
        held.extend(long)
    assert not held.settled
    bench.quiet(bench.consume(source), ledger)
    held.ack()
    consumer.flush()
    bench.settled(consumer)
    ledger.check()


@clause(
    "settle.heartbeat",
    "With the heartbeat a lease does not run out while the consumer lives, however slow the handler.",
    anchors=[53],
    failures=[8, 9, 19],
    needs="lease",
)
def test_heartbeat(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    lease = _lease(bench)
    slow = bench.consume(source, lease=lease)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    held = bench.one(slow, ledger)
    other = bench.consume(source)
    bench.quiet(other, ledger, lease + bench.seconds(1.5))
    held.ack()
    slow.flush()
    bench.quiet(other, ledger)


@clause(
    "settle.slow-handler",
    "A handler that takes its time while nobody calls receive keeps its message and can still ack it.",
    anchors=[53],
    failures=[8, 9, 10],
    on=QUEUE,
)
def test_slow_handler(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    slow, other = bench.consumers(source, 2, prefetch=1)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    owner = None
    while owner is None:
        for consumer in (slow, other):
            if received := ledger.receive(consumer.receive(1, 0.5)):
                owner, held = consumer, received[0]
                break
    waiting = other if owner is slow else slow
    bench.quiet(waiting, ledger, bench.seconds(2.5))
    held.ack()
    owner.flush()
    bench.quiet(waiting, ledger)
    ledger.check()
