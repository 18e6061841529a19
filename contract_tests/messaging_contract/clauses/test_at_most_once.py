"""At most once: what a crash finds settled and not handled is lost, and nothing ever comes twice."""

from __future__ import annotations

from typing import get_args

from messaging_contract.bench import Bench
from messaging_contract.clause import clause
from messaging_contract.faults import at_most_once_victim as victim

_VICTIM = 90.0
_COME_BACK = 120.0
"""Seconds until what a killed process held is somebody else's, on the slowest broker with its default settings."""


@clause(
    "at_most_once.killed",
    "A process killed before it handled what it was given: that never comes again; all that it was not given does.",
    anchors=[61],
    failures=[5],
    controls="remote",
    deadline=420,
)
def test_killed(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    for how in get_args(victim.How):
        source, ledger = bench.source(), bench.ledger(how)
        sent = ledger.publish(bench.broker, source.destination, ledger.messages(8, keys=1))
        group = source.group or ""
        given = victim.run(remote, source.destination.name, group, how, _VICTIM)
        assert len(set(given)) == len(given) == 3, f"{how} was given {given}"
        consumer = bench.consume(source)
        rest = set(sent) - set(given)
        bench.take(consumer, ledger, ack=True, only=rest, timeout=_COME_BACK)
        bench.quiet(consumer, ledger)
        assert sorted(ledger.received) == sorted(rest), f"{how}: not exactly what the killed one was not given"
