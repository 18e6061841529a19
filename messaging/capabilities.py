"""What a broker can do, declared by its adapter and tested both ways by the contract suite."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from messaging.errors import UnsupportedCapability


class Support(Enum):
    """How a capability is had on a broker."""

    NATIVE = "native"
    EMULATED = "emulated"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Capability:
    """How one thing is supported, and in a few words by which mechanism (shown in the README's table)."""

    support: Support
    how: str = ""

    def __bool__(self) -> bool:
        return self.support is not Support.UNSUPPORTED


def native(how: str = "") -> Capability:
    """The broker does it itself."""
    return Capability(Support.NATIVE, how)


def emulated(how: str) -> Capability:
    """The adapter does it, as `how` says."""
    return Capability(Support.EMULATED, how)


def unsupported(why: str = "") -> Capability:
    """Asking for it raises UnsupportedCapability."""
    return Capability(Support.UNSUPPORTED, why)


@dataclass(frozen=True)
class Capabilities:
    """One field a capability, plus the numbers that limit it."""

    queues: Capability
    """Point-to-point: each message to one consumer of a competing pool."""
    topics: Capability
    """Publish/subscribe: each subscription gets its own copy."""
    patterns: Capability
    """A subscription takes only the types that match its routing pattern."""
    ordering: Capability
    """`ordered=True`: one message of a key at a time, in publish order, also across redeliveries."""
    nack_delay: Capability
    """`nack(delay=)`: the message comes back to this subscription only, never before the delay."""
    dead_letter: Capability
    """`reject()`: the message is in the dead-letter queue before it leaves its source."""
    delayed_queue: Capability
    """`publish(delay=)` to a queue."""
    delayed_topic: Capability
    """`publish(delay=)` to a topic."""
    ttl: Capability
    """`publish(ttl=)`: a message past its time to live is not delivered."""
    mandatory: Capability
    """`publish(mandatory=True)` to a topic: raises Unroutable when no subscription takes the message."""
    lease: Capability
    """An unsettled message is handed to somebody else after `lease` seconds unless extended."""
    replay: Capability
    """`consumer.replay()`: go back to an earlier position of a topic."""
    lag: Capability
    """`consumer.lag()`: how many messages are published and not yet acknowledged."""
    transactions: Capability
    """Consume, process and produce exactly once."""

    max_message_bytes: int | None = None
    """Largest body plus headers the broker takes, bytes; None when it sets no limit."""
    max_delay: float | None = None
    """Longest `delay`, seconds; None when there is no limit."""

    def require(self, capability: str, broker: str, instead: str = "") -> None:
        """Raises UnsupportedCapability when `capability` (a field's name) is unsupported; `instead`: what to do."""
        value: Capability = getattr(self, capability)
        if not value:
            text = f"{broker} does not support {capability.replace('_', ' ')}"
            if value.how:
                text += f" ({value.how})"
            raise UnsupportedCapability(f"{text}: {instead}" if instead else text)

    @classmethod
    def names(cls) -> list[str]:
        """The names of all capabilities, in the order of the README's table."""
        return [f.name for f in fields(cls) if f.type == "Capability"]
