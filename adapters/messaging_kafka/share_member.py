"""Leaving a share group without a trace."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from threading import Event
from typing import Any

from confluent_kafka import KafkaException, ShareConsumer

log = logging.getLogger(__name__)

_ANSWERED_WITHIN = 3.0
"""Seconds for the answer to a heartbeat or a fetch. A fetch is answered after half a second, also with nothing."""
_NEXT_STATISTICS = 0.02
"""Seconds between two looks whether the client has told how it is."""


class Membership:
    """What one share consumer and its brokers have under way. Used by the thread that polls the consumer.

    A member that leaves before its first heartbeat is answered stays in the group for 45 seconds
    (`group.share.session.timeout.ms`), and nobody gets what is in its partitions.

    A member that waits for messages always has a fetch under way. What that brings while the member leaves, nobody
    sees: it goes back to the queue with one delivery more, to the next member. When that is leaving too, as after a
    SIGTERM to all workers, a few such deliveries reach the broker's limit, and it drops the message in silence. Hence
    `halt`. The client's statistics are the only sign of either.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"stats_cb": self._on_statistics, "statistics.interval.ms": 50}
        """What the consumer's configuration needs for this."""
        self.statistics = ""
        """The last, as JSON."""
        self._joined = False
        self._heartbeats = 0
        """Those sent before it joined for the last time."""

    def _on_statistics(self, text: str) -> None:
        self.statistics = text

    def wait(self, consumer: ShareConsumer, deadline: float) -> None:
        """Waits until it has joined. After the deadline nothing is waited for, and it is taken to have joined."""
        if self._joined:
            return
        begun = time.monotonic()
        self._joined = self._until(consumer, self._has_joined, deadline)
        if not self._joined and begun < deadline:
            log.warning(
                "a share consumer leaves before the broker has answered it: what is in its partitions may be "
                "delivered to others 45 seconds late (group.share.session.timeout.ms)"
            )

    def leave(self, consumer: ShareConsumer, deadline: float) -> None:
        """Closes the consumer, once it has joined."""
        try:
            self.wait(consumer, deadline)
        finally:
            consumer.close()

    def halt(self, consumer: ShareConsumer, topic: str, received: int, deadline: float) -> list[Any]:
        """Ends fetching: the consumer is to be closed. Returns the records that came by now, mostly none.

        received: how many were polled. The deadline is for joining, which is waited for first. Raises KafkaException.
        """
        for _ in range(3):
            self._stop_fetching(consumer, deadline)
            statistics = json.loads(self.statistics or "{}")
            if statistics.get("rxmsgs", 0) <= received:
                break
            # Only who is subscribed is given what is there; it comes without another fetch.
            self._joined, self._heartbeats = False, _heartbeats(statistics)
            consumer.subscribe([topic])
            if records := list(consumer.poll(0)):
                self.wait(consumer, time.monotonic() + _ANSWERED_WITHIN)
                return records
            # Not for us, and now there is a fetch again.
            received, deadline = statistics["rxmsgs"], time.monotonic() + _ANSWERED_WITHIN
        else:
            self._stop_fetching(consumer, deadline)
        return []

    def _stop_fetching(self, consumer: ShareConsumer, deadline: float) -> None:
        self.wait(consumer, deadline)
        consumer.unsubscribe()
        self._until(consumer, _is_quiet, time.monotonic() + _ANSWERED_WITHIN)

    def _has_joined(self, statistics: dict[str, Any]) -> bool:
        return _heartbeats(statistics) > self._heartbeats and not _waits(_coordinator(statistics))

    def _until(self, consumer: ShareConsumer, condition: Callable[[dict[str, Any]], bool], deadline: float) -> bool:
        """Waits until `condition` holds for two statistics in a row: the first may have been made before now."""
        held, last = 0, self.statistics
        while held < 2:
            try:
                consumer.commit_async()  # calls back what is due, as poll does, which would fetch
            except KafkaException:
                return False
            if self.statistics is not last:
                last = self.statistics
                held = held + 1 if condition(json.loads(last)) else 0
            elif time.monotonic() > deadline:
                return False
            else:
                Event().wait(_NEXT_STATISTICS)
        return True


def _coordinator(statistics: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statistics.get("brokers", {}).get("GroupCoordinator", {})
    return found


def _heartbeats(statistics: dict[str, Any]) -> int:
    sent: int = _coordinator(statistics).get("req", {}).get("ShareGroupHeartbeat", 0)
    return sent


def _waits(broker: dict[str, Any]) -> bool:
    """Whether a request to it is not answered."""
    return bool(broker.get("outbuf_cnt", 0) > 0 or broker.get("waitresp_cnt", 0) > 0)


def _is_quiet(statistics: dict[str, Any]) -> bool:
    return not any(map(_waits, statistics.get("brokers", {}).values()))
