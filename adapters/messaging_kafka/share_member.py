"""Leaving a share group without a trace."""

from __future__ import annotations

import json
import time
from typing import Any

from confluent_kafka import KafkaException, ShareConsumer


class Membership:
    """How far one share consumer is with joining its group. Used by the thread that polls the consumer.

    A member that leaves before its first heartbeat is answered stays in the group for 45 seconds
    (`group.share.session.timeout.ms`), and nobody gets what is in its partitions. The client's statistics are the only
    sign of how far it is.
    """

    def __init__(self) -> None:
        self.joined = False
        self.config: dict[str, Any] = {"stats_cb": self._on_statistics, "statistics.interval.ms": 50}
        """What the consumer's configuration needs for this."""

    def _on_statistics(self, text: str) -> None:
        if self.joined:
            return
        statistics = json.loads(text)
        coordinator = statistics.get("brokers", {}).get("GroupCoordinator", {})
        sent = coordinator.get("req", {}).get("ShareGroupHeartbeat", 0)
        self.joined = sent > 0 and coordinator["outbuf_cnt"] == 0 == coordinator["waitresp_cnt"]

    def wait(self, consumer: ShareConsumer, deadline: float) -> None:
        """Polls until it has joined. What is polled meanwhile is released when the consumer is closed."""
        while not self.joined and time.monotonic() < deadline:
            try:
                if consumer.poll(0.05):
                    self.joined = True  # it has partitions
            except KafkaException:
                return
