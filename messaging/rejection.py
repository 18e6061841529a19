"""Why a message is given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a message is given up. error: the type of the exception. first_failure: seconds since the epoch."""

    reason: str = "rejected"
    error: str = ""
    first_failure: float | None = None
