"""Clauses that no saboteur is caught by, and why none can be."""

from __future__ import annotations

_VALUE = "a value, or the worker, refuses it before any broker is asked, and a saboteur is a broker"
_CONNECT = "`messaging.connect` alone, which takes an installed adapter by its URL: a saboteur has none"
_PROCESS = "another process gets the installed adapter by a URL: a saboteur, and its memory broker, live in this one"

_PARTITIONS = "about partitions, and the memory broker that a saboteur wraps has none"
_OF_ITS_OWN = "something that only this real broker does of its own accord, and the memory broker never"

WHY_NOT: dict[str, str] = {
    "asyncio.two-loops": "what remembers its event loop is the asyncio side, above the broker that a saboteur is",
    "lifecycle.fork": "the core refuses every call in the child, and a child inherits no socket of the memory broker",
    "retry.order-refused": _VALUE,
    "topology.names": _VALUE,
    "bad_input.profile": _CONNECT,
    "bad_input.scheme": _CONNECT,
    "lifecycle.dead-host-skipped": _CONNECT,
    "lifecycle.unreachable": _CONNECT,
    "lifecycle.wrong-credentials": _CONNECT,
    "faults.killed-after-flush": _PROCESS,
    "faults.killed-after-nack": _PROCESS,
    "faults.killed-after-reject": _PROCESS,
    "faults.killed-at-every-step": _PROCESS,
    "faults.killed-consumer": _PROCESS,
    "faults.killed-publisher": _PROCESS,
    "faults.killed-while-handling": _PROCESS,
    "lifecycle.sigterm": _PROCESS,
    "redrive.killed": _PROCESS,
    "at_most_once.killed": _PROCESS,
    "exactly_once.killed": _PROCESS,
    "exactly_once.taken-over": _PARTITIONS,
    "exactly_once.cut": _OF_ITS_OWN,
    "publish.exit-without-close": _PROCESS,
    "ordering.key-has-one-partition": _PARTITIONS,
    "ordering.offsets-agree": _PARTITIONS,
    "topology.partitions-grow": _PARTITIONS,
    "topology.native-options": _OF_ITS_OWN,
    "topology.every-setting-is-told": "changed with the broker's own client, and the memory broker has none",
    "faults.delivery-ack-timeout": _OF_ITS_OWN,
    "faults.credentials-expire": _OF_ITS_OWN,
    "faults.memory-alarm": _OF_ITS_OWN,
    "faults.memory-alarm-bounds": _OF_ITS_OWN,
}
"""By clause id. A reason is the last resort: it says that the clause is not known to be able to fail."""
