"""Which leases are lost together."""

from __future__ import annotations

import time

from messaging_sqs.leases import Lease, Leases


def held(leases: Leases, receipt: str, group: str | None) -> Lease:
    now = time.monotonic()
    lease = Lease(receipt, group, now + 600, now)
    leases.held[lease] = None
    return lease


def test_a_lost_lease_takes_its_group_along() -> None:
    leases = Leases(10)
    first, second, other = (held(leases, receipt, receipt[0]) for receipt in ("a1", "a2", "b1"))
    with leases.lock:
        assert leases.lose(first) == [second]
    assert (first.lost, second.lost, other.lost) == (True, True, False)
    assert list(leases.held) == [other]


def test_a_lease_is_lost_once() -> None:
    leases = Leases(10)
    old = held(leases, "a1", "a")
    with leases.lock:
        assert leases.lose(old) == []
        again = held(leases, "a1 again", "a")
        assert leases.lose(old) == []
        assert not again.lost
        assert leases.settle(again)


def test_standard_queues_have_no_groups() -> None:
    leases = Leases(10)
    first, second = held(leases, "1", None), held(leases, "2", None)
    with leases.lock:
        assert leases.lose(first) == []
    assert not second.lost
