"""Keeps messages invisible to others while their consumer lives."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from threading import Condition, Thread
from typing import TYPE_CHECKING

from messaging.errors import LeaseLost, UnsupportedCapability
from messaging.topology import Source
from messaging_sqs.batch import BATCH, Outcomes
from messaging_sqs.errors import whole_seconds
from messaging_sqs.leases import Lease, Leases
from messaging_sqs.options import MAX_VISIBILITY
from messaging_sqs.settlements import Settlements

if TYPE_CHECKING:
    from messaging_sqs.driver import SQSDriver

_log = logging.getLogger("messaging.sqs")

_MARGIN = 2
"""Seconds kept from the 12 hours in all that AWS allows from the receipt of a message."""


class Heartbeat:
    """Extends every lease once a third of it is gone, and those that a consumer asks for; lets go of what lapsed.

    Without `beats` it does not extend by itself.

    While a call for a lease is under way it is marked `extending`: a nack waits for it, so that the nack is what
    the broker hears last. Guarded by `leases.lock`; `_beat` wakes the thread, which `stop` joins.
    """

    def __init__(
        self,
        driver: SQSDriver,
        source: Source,
        url: str,
        leases: Leases,
        settlements: Settlements,
        visibility: int,
        beats: bool,
    ) -> None:
        self._driver = driver
        self._source = source
        self._url = url
        self._leases = leases
        self._settlements = settlements
        self._visibility = visibility
        self._beats = beats
        self._beat = Condition(leases.lock)
        self._stopped = False
        self._thread = Thread(target=self._run, name="messaging-sqs-heartbeat", daemon=True)
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Extends nothing any more. Joins the thread."""
        with self._leases.lock:
            self._stopped = True
            self._beat.notify_all()
        self._thread.join(max(deadline - time.monotonic(), 0))

    def extend(self, lease: Lease, seconds: float) -> None:
        """As `Settler.extend`; waits for the broker, since only it knows whether the lease was still there."""
        doing = f"extend on {self._source}"
        timeout = whole_seconds(seconds)
        if timeout > MAX_VISIBILITY:
            raise UnsupportedCapability(f"{doing}: SQS keeps a message for 12 hours at most, not {seconds:g} s")
        with self._leases.lock:
            self._leases.free.wait_for(lambda: not lease.extending)
            if lease.settled or not self._leases.live(lease):
                raise LeaseLost(f"{doing}: the message is settled or its lease has run out")
            if time.monotonic() - lease.received + timeout > MAX_VISIBILITY:
                raise UnsupportedCapability(
                    f"{doing}: SQS keeps a message for 12 hours in all from its receipt; {seconds:g} s more is too long"
                )
            lease.extending = True
        outcome = self._extend([lease], [timeout], doing)[0]
        if outcome is not None:
            raise outcome

    def _run(self) -> None:
        third = self._visibility / 3
        while True:
            with self._leases.lock:
                if self._stopped:
                    return
                now = time.monotonic()
                work: list[tuple[Lease, int]] = []
                wait = third
                for lease in list(self._leases.held):
                    left = lease.deadline - now
                    early = left - 2 * third
                    if lease.extending or lease.lost:
                        continue
                    if self._beats and early > 0.001:
                        wait = min(wait, early)
                    elif self._beats and (timeout := self._timeout(lease, now)):
                        work.append((lease, timeout))
                    elif left > 0:
                        wait = min(wait, left)
                    else:
                        # Somebody else gets it now, or this consumer again: it holds no place here any more.
                        self._settlements.lose(lease)
                for lease, _ in work:
                    lease.extending = True
                if not work:
                    self._beat.wait(wait)
                    continue
            failed = False
            for start in range(0, len(work), BATCH):
                part = work[start : start + BATCH]
                outcomes = self._extend(
                    [lease for lease, _ in part], [t for _, t in part], f"heartbeat of {self._source}"
                )
                failed = failed or any(o is not None and not isinstance(o, LeaseLost) for o in outcomes)
            if failed:
                with self._leases.lock:
                    self._beat.wait_for(lambda: self._stopped, min(1.0, third / 2))

    def _timeout(self, lease: Lease, now: float) -> int:
        """Seconds to ask for: less near the 12 hours, 0 when asking again would gain nothing."""
        most = int(MAX_VISIBILITY - _MARGIN - (now - lease.received))
        if most >= self._visibility:
            return self._visibility
        if lease.deadline - now < most:
            _log.warning("%s: a message is held for almost 12 hours; SQS hands it to others then", self._source)
            return most
        return 0

    def _extend(self, leases: Sequence[Lease], timeouts: Sequence[int], doing: str) -> Outcomes:
        """One call for leases that are marked `extending`; unmarks them."""
        before = time.monotonic()
        entries = [
            {"ReceiptHandle": lease.receipt, "VisibilityTimeout": timeout}
            for lease, timeout in zip(leases, timeouts, strict=True)
        ]
        outcomes: Outcomes = []
        try:
            outcomes = self._driver.change_visibility(self._url, entries, doing)
        finally:
            with self._leases.lock:
                for lease, timeout, outcome in zip(leases, timeouts, outcomes, strict=False):
                    if outcome is None:
                        lease.deadline = before + timeout
                    elif isinstance(outcome, LeaseLost) and not lease.settled:
                        self._settlements.lose(lease)
                for lease in leases:
                    lease.extending = False
                    if lease.after is not None:
                        lease.after()
                        lease.after = None
                self._leases.free.notify_all()
                self._beat.notify()
        return outcomes
