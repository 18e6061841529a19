"""Leaving a share group without a trace."""

from __future__ import annotations

import json
import time
from typing import Any

from confluent_kafka import KafkaException, ShareConsumer

_ANSWERED_WITHIN = 300
"""Milliseconds after finding the coordinator by which it has answered a member's first heartbeat."""


class Membership:
    """How far one share consumer is with joining its group. Used by the thread that polls the consumer.

    A member that leaves before its first heartbeat is answered stays in the group for 45 seconds
    (`group.share.session.timeout.ms`), and nobody gets what is in its partitions. The client's statistics are the only
    sign of how far it is.
    """

    def __init__(self) -> None:
        self.joined = False
        self.config: dict[str, Any] = {"stats_cb": self._on_statistics, "statistics.interval.ms": 100}
        """What the consumer's configuration needs for this."""

    def _on_statistics(self, text: str) -> None:
        if not self.joined:
            group = json.loads(text).get("cgrp", {})
            up = group.get("state") == "up" and group.get("stateage", 0) >= _ANSWERED_WITHIN
            self.joined = up or group.get("join_state") == "steady"

    def wait(self, consumer: ShareConsumer, deadline: float) -> None:
        """Polls until it has joined. What is polled meanwhile is released when the consumer is closed."""
        while not self.joined and time.monotonic() < deadline:
            try:
                if consumer.poll(0.05):
                    self.joined = True  # it has partitions
            except KafkaException:
                return
