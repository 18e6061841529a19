"""What a plan tells, and what a look at the broker finds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from messaging import Broker, DestinationNotFound, Finding, Part, Queue, Subscription, Topic, UnsupportedCapability
from messaging.topology import Destination, sources_of
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause


@clause(
    "topology.plan-is-what-is-made",
    "Every part that plan lists is missing before it is declared and there after it; sources and their dead-letter "
    "queues are among them. Or planning is refused.",
    anchors=[151, 152],
)
def test_plan_is_what_is_made(bench: Bench) -> None:
    destination = _new(bench)
    if _refuses(bench, destination):
        return
    parts = bench.broker.plan(destination)
    for source in sources_of(destination):
        for name in (source.name, source.dead_letter.name if source.dead_letter else source.name):
            assert any(name in part.name for part in parts), f"no part of the plan is {name!r}"
    assert all(part.why for part in parts)
    before = bench.broker.inspect(destination)
    assert [finding.part for finding in before] == parts
    assert [finding for finding in before if finding.state not in ("missing", "unknown")] == []
    assert _drifted(before)
    bench.broker.declare(destination)
    after = bench.broker.inspect(destination)
    assert _drifted(after) == []
    assert any(finding.state == "there" for finding in after)
    bench.broker.delete(destination)
    bench.eventually(
        lambda: all(f.state in ("missing", "unknown") for f in bench.broker.inspect(destination)), "everything gone"
    )


@clause(
    "topology.inspect-creates-nothing",
    "inspect makes nothing that is missing and changes nothing that differs, which it tells. Or it is refused.",
    anchors=[152, 153],
    needs="ordering",
)
def test_inspect_creates_nothing(bench: Bench) -> None:
    missing = _new(bench)
    if _refuses(bench, missing):
        return
    for _ in range(2):
        assert _drifted(bench.broker.inspect(missing))
    with pytest.raises(DestinationNotFound):
        bench.connect(topology=missing, create=False)
    there, ledger = bench.source(), bench.ledger()
    ledger.publish_one(bench.broker, there.destination, ledger.message())
    name = there.destination.name
    other: Destination = Queue(name, ordered=True) if bench.kind == "queue" else Topic(name, "g", ordered=True)
    drifted = _drifted(bench.connect().inspect(other))
    assert drifted
    assert all(finding.way_out for finding in drifted)
    bench.connect(topology=there.destination, create=False)
    bench.take(bench.consume(there), ledger, ack=True)
    ledger.check()


@clause(
    "topology.native-options",
    "A queue declared with a native option (type, partitions, visibility) is what exists; another value is told.",
    anchors=[155],
    on=QUEUE,
    controls="special",
)
def test_native_options(bench: Bench) -> None:
    assert bench.harness.special is not None
    one, two = bench.harness.special
    asked = Queue(bench.name(), native=one)
    other = Queue(asked.name, native=two)
    bench.broker.declare(asked)
    assert _drifted(bench.broker.inspect(asked)) == []
    looking = bench.connect()
    drifted = _drifted(looking.inspect(other))
    assert drifted, f"{one} was asked for, and {two} is found as well"
    assert [difference for finding in drifted for difference in finding.differences]


@clause(
    "topology.every-setting-is-told",
    "A setting of a part that somebody changed on the broker is told by inspect, by its name, retries included.",
    anchors=[152, 155],
    controls="drift",
    deadline=180,
)
def test_every_setting_is_told(bench: Bench) -> None:
    assert bench.harness.drift is not None
    name, delay, native = bench.name(), bench.seconds(0.5), bench.harness.drift.native
    retried: Destination = Topic(name, Subscription("g", "order.*"))
    if bench.kind == "queue":
        retried = Queue(name, native=native)
    source, ledger = sources_of(retried)[0], bench.ledger()
    bench.broker.declare(retried)
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, retried, ledger.message(type="order.x"))
    if bench.able.nack_delay:  # so that what a retry is made of on demand is there
        bench.one(consumer, ledger).nack(delay=delay)
    bench.one(consumer, ledger).ack()
    consumer.close()
    changed = _changed(bench, retried, [delay])
    if bench.able.ordering:
        name = bench.name()
        ordered: Destination = Queue(name, ordered=True) if bench.kind == "queue" else Topic(name, "g", ordered=True)
        bench.broker.declare(ordered)
        changed |= _changed(bench, ordered, [])
    assert changed, "nothing could be changed"


def _changed(bench: Bench, destination: Destination, delays: Sequence[float]) -> set[str]:
    """Changes every setting that can be, one after the other."""
    assert bench.harness.drift is not None
    looking = bench.connect()
    changed: set[str] = set()
    for part in looking.plan(destination, delays=delays):
        for setting in part.settings:
            with bench.harness.drift.change(part, setting) as name:
                if name is not None:
                    changed.add(setting)
                    told = partial(_told, looking, destination, delays, part, name)
                    bench.eventually(told, f"to be told that {setting} of {part} is another")
    bench.eventually(lambda: not _drifted(looking.inspect(destination, delays=delays)), "all to be as it was")
    return changed


def _told(broker: Broker, destination: Destination, delays: Sequence[float], part: Part, name: str) -> bool:
    [finding] = [f for f in broker.inspect(destination, delays=delays) if f.part == part]
    # Missing: a share group that reads from another place is not the one that declaring makes.
    return finding.state == "missing" or any(difference.setting == name for difference in finding.differences)


def _new(bench: Bench) -> Destination:
    return Queue(bench.name()) if bench.kind == "queue" else Topic(bench.name(), "g", "h")


def _drifted(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.drifted]


def _refuses(bench: Bench, destination: Destination) -> bool:
    """Whether the adapter plans nothing; then it may not pretend to inspect either."""
    try:
        bench.broker.plan(destination)
    except UnsupportedCapability:
        with pytest.raises(UnsupportedCapability):
            bench.broker.inspect(destination)
        return True
    return False
