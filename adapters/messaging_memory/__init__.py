"""The in-memory broker: the embedded default, with real redelivery, leases, delays, groups and ordering.

URL: `memory://`. Each `connect("memory://")` has a broker of its own; to share one, make a `MemoryServer` and give it
to each: `connect("memory://", server=server)`. Nothing is global and nothing outlives the process.

Delivery semantics: as the other adapters. Messages live in the process: a restart loses them.
`native` is the `MemoryServer`.
"""

from messaging_memory.clock import Clock, ManualClock
from messaging_memory.driver import MemoryDriver
from messaging_memory.server import MemoryServer

__all__ = ["Clock", "ManualClock", "MemoryDriver", "MemoryServer"]
