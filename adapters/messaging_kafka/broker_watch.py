"""Whether a client still knows a broker."""

from __future__ import annotations

from typing import Any

import msgspec

EVERY = 3.0
"""Seconds between two statistics."""
_IN_A_ROW = 2
"""So many say that no broker is known: for an instant that is so whenever a client begins again."""


class _Broker(msgspec.Struct):
    source: str


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]


_decoder = msgspec.json.Decoder(_Statistics)


class BrokerWatch:
    """Sees in a client's statistics that it knows no broker any more, and so is of no use any more.

    A cluster whose only broker starts says for a moment that it has none. The client (librdkafka 2.11 to 2.16, issue
    5301) then drops those it knew and begins again at its bootstrap servers; but the very answer that makes it do so
    may cancel that, for good: it never connects to anything again and says so to nobody. Only another client helps.

    For the thread that polls the client.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"stats_cb": self.look, "statistics.interval.ms": round(EVERY * 1000)}
        """What the client's configuration needs for this."""
        self._without = 0

    def look(self, statistics: str) -> None:
        """Takes a look at what the client tells of itself, as JSON."""
        brokers = _decoder.decode(statistics).brokers.values()
        # "GroupCoordinator" and the like are other names of a broker, "internal" is none.
        knows = any(broker.source in ("learned", "configured") for broker in brokers)
        self._without = 0 if knows else self._without + 1

    @property
    def is_lost(self) -> bool:
        """Whether the client knows no broker, and will not come to know one."""
        return self._without >= _IN_A_ROW
