"""More workers and fewer while messages flow, and suites side by side on one broker."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, Event
from typing import Any

import pytest

from messaging import Delivery, TopologyError, Worker
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import clause, clauses_in
from messaging_contract.ledger import Ledger


class Crowd:
    """Handlers that wait until they are let go. `_changed` guards the counts."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed = Condition()
        self._running: dict[str, int] = {}
        self.go_on = Event()
        self.cut_off: list[BaseException] = []

    def handler(self, name: str) -> Any:
        def handle(delivery: Delivery) -> None:
            self._count(name, 1)
            try:
                self.go_on.wait(60)
                self._ledger.receive([delivery])
            except BaseException as error:
                self.cut_off.append(error)
                raise
            finally:
                self._count(name, -1)

        return handle

    def running(self, name: str) -> int:
        """How many handlers of that worker run now."""
        with self._changed:
            return self._running.get(name, 0)

    def _count(self, name: str, change: int) -> None:
        with self._changed:
            self._running[name] = self._running.get(name, 0) + change


def _worker(bench: Bench, source: Source, handler: Any, concurrency: int) -> Worker:
    worker = Worker(bench.connect())
    group = source.group
    worker.on(source.destination, group, concurrency=concurrency, prefetch=4)(handler)
    return worker


@clause(
    "retry.more-and-fewer-workers",
    "Concurrency is raised by starting another worker and lowered by stopping one; what is being handled goes on.",
    anchors=[28],
    deadline=240,
)
def test_more_and_fewer_workers(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    crowd = Crowd(ledger)
    few = _worker(bench, source, crowd.handler("few"), 1)
    more = _worker(bench, source, crowd.handler("more"), 3)
    with few:
        ledger.publish(bench.broker, source.destination, ledger.messages(8, keys=8))
        bench.eventually(lambda: crowd.running("few") == 1, "the first worker to handle one")
        assert crowd.running("few") == 1
        more.start()

        def both() -> bool:
            if not crowd.running("more"):
                ledger.publish(bench.broker, source.destination, ledger.messages(4, keys=4))
            return crowd.running("few") == 1 and crowd.running("more") >= 1

        bench.eventually(both, "the second worker to get its share", 2 * bench.patience)
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(more.stop, 60)
            crowd.go_on.set()
            assert stopping.result(90), "a handler of the worker that was stopped did not finish"
        bench.eventually(
            lambda: not ledger.missing, lambda: f"{len(ledger.missing)} messages to be handled", 2 * bench.patience
        )
    assert not crowd.cut_off, f"a handler was cut off: {crowd.cut_off[0]!r}"
    ledger.check(duplicates=True)  # a message may go to another member before its handling has ended


_TOGETHER = ("round-trip", "before-consumer", "nack-redelivers", "out-of-order-acks", "fresh-is-empty", "purge")


@clause(
    "meta.side-by-side",
    "Clauses that run at the same time on one broker, each four times, do not disturb each other.",
    anchors=[160],
    deadline=240,
)
def test_side_by_side(bench: Bench) -> None:
    areas = [importlib.import_module(f"{__package__}.test_{area}") for area in ("publish", "settle", "topology")]
    clauses = [c for area in areas for c in clauses_in(area) if c.id.partition(".")[2] in _TOGETHER]
    assert len(clauses) == len(_TOGETHER)
    chosen = [c for c in clauses if bench.kind in c.on and all(getattr(bench.able, name) for name in c.needs)]

    def run(number: int) -> None:
        own = Bench(bench.harness, bench.kind)
        try:
            chosen[number % len(chosen)].check(own)
        finally:
            own.close()

    assert bench.harness.broker is not None  # made before there are threads
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(4 * len(chosen))))


@clause(
    "receive.group-or-not",
    "A topic is not consumed without the name of a group, nor a queue with one: TopologyError, and nothing is made.",
)
def test_group_or_not(bench: Bench) -> None:
    source = bench.source()
    with pytest.raises(TopologyError, match="group"):
        bench.broker.subscribe(source.destination, None if source.subscription else "g")
    assert bench.broker.topology.get(source.destination.name) == source.destination
