"""What a topology is made of in the memory broker, and what of it is there."""

from __future__ import annotations

from collections.abc import Sequence

from messaging.plan import Difference, Finding, Part, compare, different, missing
from messaging.topology import Source, Topic, Topology, sources_of
from messaging_memory.server import MemoryServer

_CHANGE = "what is there is kept as it was declared: declare that, or delete it first"


def parts_of(topology: Topology) -> list[Part]:
    """In the order in which `MemoryServer.declare` makes them."""
    found: list[Part] = []
    for destination in topology:
        ordered = {"ordered": destination.ordered}
        if isinstance(destination, Topic):
            found.append(Part("topic", destination.name, ordered, "routes what is published, and keeps it for replay"))
        for source in sources_of(destination):
            if source.subscription is None:
                found.append(Part("queue", source.name, ordered, "holds what waits, until the process ends"))
            else:
                why = "holds the group's own copy of the topic, until the process ends"
                found.append(Part("subscription", source.name, {"pattern": source.pattern}, why))
            found += _dead_letters(source)
    return found


def _dead_letters(source: Source) -> list[Part]:
    queue = source.dead_letter
    if queue is None:
        return []
    return [Part("queue", queue.name, {"ordered": queue.ordered}, f"keeps what {source} rejected")]


def inspect(server: MemoryServer, parts: Sequence[Part]) -> list[Finding]:
    """A finding for each part."""
    return [_look(server, part) for part in parts]


def _look(server: MemoryServer, part: Part) -> Finding:
    found = server.look(part.name)
    if found is None:
        return missing(part)
    kind, settings = found
    if kind != part.kind:
        return different(part, [Difference("kind", kind, part.kind)], _CHANGE)
    return compare(part, settings, _CHANGE)
