"""What a receiver holds: each message with its receipt and the time until which nobody else gets it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Condition, Lock
from typing import Any

from messaging.delivery import PlainDelivery, Settler
from messaging.message import Message
from messaging.topology import Source
from messaging_sqs.encoding import decode


class Lease:
    """One receipt. Everything but `receipt`, `group` and `received` is guarded by `Leases.lock`.

    deadline: on the monotonic clock, when the visibility timeout ends as far as known here. extending: a call that
    changes it is under way. after: what to do once that call is over.
    """

    __slots__ = ("after", "deadline", "extending", "group", "lost", "receipt", "received", "settled")

    def __init__(self, receipt: str, group: str | None, deadline: float, received: float) -> None:
        self.receipt = receipt
        self.group = group
        self.deadline = deadline
        self.received = received
        self.extending = False
        self.settled = False
        self.lost = False
        self.after: Callable[[], None] | None = None


class SQSDelivery(PlainDelivery):
    """A message of ReceiveMessage; decoded at first use. `native` is boto3's dict."""

    __slots__ = ("lease",)

    def __init__(self, settler: Settler, source: Source, native: Mapping[str, Any], lease: Lease) -> None:
        super().__init__(settler, source, native, int(native.get("Attributes", {}).get("ApproximateReceiveCount", 1)))
        self.lease = lease

    def _load(self) -> Message:
        return decode(self.native)


class Leases:
    """The unsettled leases of one receiver, oldest first. `lock` guards them, and the receiver's other state too.

    `room`: wakes the polling threads. `free`: wakes who waits for a lease that is being extended.
    """

    def __init__(self, prefetch: int) -> None:
        self.lock = Lock()
        self.room = Condition(self.lock)
        self.free = Condition(self.lock)
        self.held: dict[Lease, None] = {}
        self.asked = 0
        """Messages that polls under way may bring."""
        self._prefetch = prefetch

    @property
    def available(self) -> int:
        """How many more messages may be asked for. Under the lock."""
        return self._prefetch - len(self.held) - self.asked

    def live(self, lease: Lease) -> bool:
        """Whether the message is still ours."""
        return not lease.lost and lease.deadline > time.monotonic()

    def settle(self, lease: Lease) -> bool:
        """Takes the lease out, to be settled. False when it is gone: settled, lost, or lapsed. Under the lock."""
        if lease.settled or not self.live(lease):
            return False
        lease.settled = True
        self._remove(lease)
        return True

    def lose(self, lease: Lease) -> list[Lease]:
        """The lease is gone. Under the lock.

        Returns the others of its group that are still held, now lost too: handled before the lost one, which
        comes again, they would be out of order. The caller gives them back.
        """
        if lease.lost:
            # Found again, in the buffer: what is held of its group by now came after it was given back.
            return []
        lease.lost = True
        self._remove(lease)
        if lease.group is None:
            return []
        others = [other for other in self.held if other.group == lease.group]
        for other in others:
            other.lost = True
            self._remove(other)
        return others

    def _remove(self, lease: Lease) -> None:
        if lease in self.held:
            del self.held[lease]
            self.room.notify()
