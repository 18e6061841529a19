"""Makes, looks for and deletes what `parts` lists."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pika import exceptions

from messaging.errors import TopologyError
from messaging.names import SEPARATOR
from messaging.plan import Part
from messaging.topology import Destination, Topic, Topology, sources_of
from messaging_rabbitmq.failures import NOT_FOUND, REFUSED, channel_failure
from messaging_rabbitmq.flow import Request, Steps
from messaging_rabbitmq.parts import (
    BINDING,
    DIGITS,
    EXCHANGE_BINDING,
    QUEUE,
    Version,
    WaitQueue,
    all_delays,
    is_marker,
    marked_pattern,
    marker_of,
    marker_source,
    wait_parts,
)


def declare(parts: Iterable[Part], create: bool) -> Steps:
    """Creates what is missing, or only looks. Raises as `Driver.declare`."""
    for part in parts:
        what = f"declare {part}" if create else f"look for {part}"
        if part.kind in (BINDING, EXCHANGE_BINDING):
            if create:
                yield from _try(bind(part), what)
        elif is_marker(part):
            yield from _ensure_pattern(part, create)
        else:
            if not create:
                yield from _try(look(part), what)
            # It exists: declaring it again compares the arguments and creates nothing.
            yield from _try(make(part), what, forgive_refusal=not create)


def make(part: Part, settings: Mapping[str, Any] | None = None) -> Request:
    """Declares a queue or exchange, with other settings than its own if they are given."""
    arguments = dict(part.settings if settings is None else settings)
    if part.kind == QUEUE:
        return lambda channel, reply: channel.queue_declare(
            part.name, durable=True, arguments=arguments, callback=reply
        )
    kind = arguments.pop("type")
    return lambda channel, reply: channel.exchange_declare(
        part.name, kind, durable=True, arguments=arguments or None, callback=reply
    )


def look(part: Part) -> Request:
    """Asks for a queue or exchange, and creates nothing."""
    return _look_for_queue(part.name) if part.kind == QUEUE else _look_for_exchange(part.name)


def bind(part: Part) -> Request:
    """Makes a binding."""
    source, destination = part.settings["source"], part.settings["destination"]
    key = part.settings["routing_key"]
    if part.kind == BINDING:
        return lambda channel, reply: channel.queue_bind(destination, source, key, callback=reply)
    return lambda channel, reply: channel.exchange_bind(destination, source, key, callback=reply)


def _look_for_queue(name: str) -> Request:
    return lambda channel, reply: channel.queue_declare(name, passive=True, callback=reply)


def _look_for_exchange(name: str) -> Request:
    return lambda channel, reply: channel.exchange_declare(name, passive=True, callback=reply)


def _ensure_pattern(marker: Part, create: bool) -> Steps:
    """Sees to it that a subscription keeps its pattern: with another one it would have the bindings of both.

    An exchange to which nobody publishes remembers the pattern, as the name of its alternate exchange, which is the one
    argument of an exchange that RabbitMQ compares.
    """
    if not create and (yield from _missing(marker.name)):
        return  # bound by somebody else's hand
    try:
        yield from _try(make(marker), f"declare {marker}", forgive_refusal=not create)
    except TopologyError as error:
        name, pattern = marker_source(marker), marked_pattern(marker, marker.settings["alternate-exchange"])
        raise TopologyError(
            f"subscription {name!r} exists with another pattern than {pattern!r}, whose messages it would go on to "
            f"get: declare it as it is, choose another group, or drain and delete the topic ({error})"
        ) from error


def declare_wait_queue(wait: WaitQueue, version: Version) -> Steps:
    """A queue whose messages all live equally long, so that the head is always the first to go.

    Raises DestinationNotFound when the target is not there.
    """
    what = f"prepare {wait.name!r}"
    yield from _try((_look_for_exchange if wait.topic else _look_for_queue)(wait.target), what)
    for part in wait_parts(wait, version):
        request = bind(part) if part.kind in (BINDING, EXCHANGE_BINDING) else make(part)
        yield from _try(request, what)


def _try(request: Request, what: str, forgive_refusal: bool = False) -> Steps:
    try:
        return (yield request)
    except exceptions.ChannelClosedByBroker as error:
        if forgive_refusal and error.reply_code == REFUSED:
            return None
        raise channel_failure(error, what) from error


def depth(name: str) -> Steps:
    """The number of ready messages."""
    reply = yield from _try(_look_for_queue(name), f"look at queue {name!r}")
    return reply.method.message_count


def purge(name: str) -> Steps:
    """Drops every ready message."""
    yield from _try(lambda channel, reply: channel.queue_purge(name, callback=reply), f"purge queue {name!r}")


def delete(topology: Topology) -> Steps:
    """Deletes queues, exchanges, dead-letter queues and wait queues, whichever process made them."""
    for destination in topology:
        sources = sources_of(destination)
        queues = [source.name for source in sources] + [s.dead_letter.name for s in sources if s.dead_letter]
        topic = isinstance(destination, Topic)
        exchanges = [destination.name, f"{destination.name}{SEPARATOR}due"] if topic else []
        exchanges += [marker_of(source) for source in sources] if topic else []
        waits = [WaitQueue(destination.name, 1, "delay", topic), *(WaitQueue(name, 1, "retry") for name in queues)]
        for any_wait in waits:
            waiting = yield from _wait_queues(any_wait)
            queues += [wait.name for wait in waiting]
            exchanges += [name for wait in waiting for name in ({wait.exchange, *wait.markers} - {""})]
        yield from _delete(queues, sorted(set(exchanges)), destination)


def _wait_queues(any_wait: WaitQueue) -> Steps:
    """Those that may exist."""
    found: list[WaitQueue] = []
    if (yield from _missing(any_wait.markers[0])):
        return found
    for digits in DIGITS:
        some = [replace(any_wait, milliseconds=milliseconds) for milliseconds in all_delays(digits)]
        if not (yield from _missing(some[0].markers[1])):
            found += some
    return found


def leftovers(topology: Topology, used: Container[str]) -> Steps:
    """The wait queues of retries that are there and whose names are not `used`."""
    found: list[Part] = []
    for source in topology.sources:
        for wait in (yield from _wait_queues(WaitQueue(source.name, 1, "retry"))):
            if wait.name in used:
                continue
            try:
                reply = yield _look_for_queue(wait.name)
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code != NOT_FOUND:
                    raise channel_failure(error, f"look for {wait.name!r}") from error
            else:
                settings = {"x-message-ttl": wait.milliseconds, "messages": reply.method.message_count}
                why = f"what waits in it comes back to {source} when its time is over; it goes with its source"
                found.append(Part(QUEUE, wait.name, settings, why, on_demand=True))
    return found


def _missing(exchange: str) -> Steps:
    try:
        yield _look_for_exchange(exchange)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise channel_failure(error, f"look for {exchange!r}") from error
        return True
    return False


def _delete(queues: list[str], exchanges: list[str], destination: Destination) -> Steps:
    def request(channel: Any, reply: Any) -> None:
        for name in exchanges:
            channel.exchange_delete(name)
        for name in queues:
            channel.queue_delete(name)
        # The broker works in order: once this is answered, the deletes are done.
        channel.basic_qos(prefetch_count=1, callback=reply)

    try:
        yield request
    except exceptions.ChannelClosedByBroker as error:
        raise channel_failure(error, f"delete {destination.name!r}") from error
