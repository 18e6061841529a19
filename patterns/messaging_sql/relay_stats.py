"""What a relay has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RelayStats:
    """Counts since the relay was made. Only the relay writes them; reading needs no lock.

    published: confirmed by the broker. failed: attempts that the broker or this library refused. parked: rows given
    up. rounds: looks at the outbox, with or without a result. broker_errors, database_errors: rounds that ended
    because one of them was not there. lost: rounds that ended because the lease had run out.
    """

    published: int = 0
    failed: int = 0
    parked: int = 0
    rounds: int = 0
    broker_errors: int = 0
    database_errors: int = 0
    lost: int = 0
