"""`connect` and the broker it returns: the whole interface in one object."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, Unpack

from messaging import adapters, config
from messaging.capabilities import Capabilities
from messaging.concerns import Concern, merged
from messaging.consumer import Consumer, close_together
from messaging.dead_letter_queue import DeadLetterQueue
from messaging.driver import Driver
from messaging.errors import Closed, ConfigurationError, TopologyError
from messaging.lanes import OrderedReceiver
from messaging.message import MessageFields
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.patterns import MATCH_ALL
from messaging.plan import Finding, Part
from messaging.producer import Producer
from messaging.topology import Destination, Queue, Source, Subscription, Topic, Topology
from messaging.topology_file import read_topology


def connect(
    target: str | None = None,
    *,
    topology: Topology | Destination | Iterable[Destination] | None = None,
    create: bool = True,
    config_file: str | Path | None = None,
    **options: Any,
) -> Broker:
    """Connects to a broker and makes sure the topology is there.

    target: a URL (`rabbitmq://localhost`), the name of a profile in `messaging.toml`, or None: MESSAGING_URL,
    MESSAGING_PROFILE, the file's default, else `memory://`. topology: what the program uses, added to what the file
    declares. create: make what is missing; False: raise DestinationNotFound instead. options: the adapter's own,
    over those of the URL and the profile.

    Raises ConfigurationError (unknown scheme, profile or option, named with the nearest valid one),
    BrokerUnavailable or AuthenticationFailed within `connect_timeout` seconds, and what `Broker.declare` raises.
    """
    settings = config.load(config_file)
    declared = read_topology(settings.get("topology", {})).merge(Topology.of(topology))
    driver = adapters.create(config.resolve(target, settings, options))
    try:
        driver.open()
        broker = Broker(driver, create=create)
        broker.declare(declared)
    except BaseException:
        driver.close()
        raise
    return broker


class Broker:
    """A connected broker. Every method may be called from any thread; close it when done, or use it as a context.

    After a fork the child's copy is unusable (its sockets and threads are the parent's): every call raises Closed.
    `_lock` guards the topology, the open consumers and producers, and is never held during a call to the broker.
    `_declaring` is: one declaration at a time, so that of two that contradict each other the second is refused.
    """

    def __init__(self, driver: Driver, *, create: bool = True) -> None:
        self._driver = driver
        self._create = create
        self._lock = Lock()
        self._declaring = Lock()
        self._topology = Topology()
        self._producer: Producer | None = None
        self._producers: list[Producer] = []
        self._consumers: list[Consumer] = []
        self._closed = False
        self._pid = os.getpid()
        _living.add(self)

    @property
    def name(self) -> str:
        """The adapter's name: "rabbitmq"."""
        return self._driver.name

    @property
    def capabilities(self) -> Capabilities:
        """What this broker can do."""
        return self._driver.capabilities

    @property
    def version(self) -> str:
        """The broker and its version as it tells it itself, "RabbitMQ 4.0.5"; empty when it tells nothing."""
        return self._driver.version

    @property
    def native(self) -> Any:
        """The client library's own object, for what is not portable."""
        return self._driver.native

    @property
    def topology(self) -> Topology:
        """Everything declared through this broker."""
        return self._topology

    def declare(self, topology: Topology | Destination | Iterable[Destination]) -> None:
        """Makes sure queues, topics and subscriptions exist; from then on their names can be used. Idempotent.

        Raises DestinationNotFound when something is missing and `create=False`, TopologyError when what is declared
        contradicts what is there, UnsupportedCapability, ConfigurationError for a wrong `native` option.
        """
        self._check_open("declare")
        wanted = Topology.of(topology)
        with self._declaring:
            self._topology.merge(wanted)  # raises for a contradiction before anything is made
            self._check_supported(wanted)
            if len(wanted):
                self._driver.declare(wanted, self._create)
            with self._lock:
                self._topology = self._topology.merge(wanted)

    def plan(
        self, topology: Topology | Destination | Iterable[Destination] | None = None, *, delays: Sequence[float] = ()
    ) -> list[Part]:
        """What declaring `topology` makes on this broker, and a retry after each of `delays` seconds. Asks nothing.

        None: everything declared through this broker. Raises what `declare` raises for what this broker cannot hold,
        and UnsupportedCapability when the adapter cannot plan.
        """
        self._check_open("plan")
        wanted = self._topology if topology is None else Topology.of(topology)
        self._check_supported(wanted)
        # A dead-letter queue that is declared for itself too is one part, as its source needs it.
        parts: dict[tuple[str, str], Part] = {}
        for part in self._driver.plan(wanted, _checked_delays(delays)):
            parts.setdefault((part.kind, part.name), part)
        return list(parts.values())

    def inspect(
        self, topology: Topology | Destination | Iterable[Destination] | None = None, *, delays: Sequence[float] = ()
    ) -> list[Finding]:
        """Compares the broker with `plan(topology)`, a finding a part. Creates and changes nothing.

        Raises what `plan` raises, and BrokerUnavailable.
        """
        parts = self.plan(topology, delays=delays)
        return self._driver.inspect(parts)

    def leftovers(
        self,
        topology: Topology | Destination | Iterable[Destination] | None = None,
        *,
        delays: Sequence[float] | None = None,
    ) -> list[Part]:
        """What retries after other delays than `delays` seconds have left on the broker, with how many "messages" wait.

        None: what is known to be left over whatever the delays are. All of it still comes back when its time is over.
        Raises ConfigurationError, BrokerUnavailable.
        """
        self._check_open("leftovers")
        wanted = self._topology if topology is None else Topology.of(topology)
        return self._driver.leftovers(wanted, None if delays is None else _checked_delays(delays))

    def concerns(
        self, topology: Topology | Destination | Iterable[Destination] | None = None, *, delays: Sequence[float] = ()
    ) -> list[Concern]:
        """What the broker's settings do not uphold of the promise, for `topology` with retries after `delays` seconds.

        None: everything declared through this broker. Changes nothing. Raises ConfigurationError, BrokerUnavailable.
        """
        self._check_open("concerns")
        wanted = self._topology if topology is None else Topology.of(topology)
        return merged(self._driver.concerns(wanted, _checked_delays(delays)))

    def publish(
        self,
        destination: str | Destination,
        value: Any,
        *,
        delay: float = 0.0,
        mandatory: bool = False,
        timeout: float | None = None,
        **fields: Unpack[MessageFields],
    ) -> str:
        """Publishes one message; returns its id once the broker has safely stored it. See `Producer.publish`."""
        return self._default_producer().publish(
            destination, value, delay=delay, mandatory=mandatory, timeout=timeout, **fields
        )

    def publish_nowait(
        self,
        destination: str | Destination,
        value: Any,
        *,
        delay: float = 0.0,
        mandatory: bool = False,
        **fields: Unpack[MessageFields],
    ) -> Future[str]:
        """Publishes without waiting for the broker. See `Producer.publish_nowait`."""
        return self._default_producer().publish_nowait(destination, value, delay=delay, mandatory=mandatory, **fields)

    def publish_many(
        self, destination: str | Destination, items: Iterable[Any], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[str]:
        """Publishes values or `Message`s; returns their ids once all are stored. See `Producer.publish_many`."""
        return self._default_producer().publish_many(destination, items, delay=delay, timeout=timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Waits until everything published through this broker is confirmed or failed. Raises PublishTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for producer in [p for p in (self._producer, *self._producers) if p is not None]:
            producer.flush(None if deadline is None else max(deadline - time.monotonic(), 0.0))

    def producer(self, **options: Any) -> Producer:
        """A producer with its own bound and deadline (`ProducerOptions`). Raises ConfigurationError, Closed."""
        self._check_open("producer")
        producer = Producer(self._driver, self._resolve, config.build_options(ProducerOptions, options, "producer"))
        with self._lock:
            if not self._closed:
                self._producers = [p for p in self._producers if not p.closed] + [producer]
                return producer
        producer.close(0.0)
        raise Closed("producer: the broker was closed meanwhile")

    def subscribe(
        self, destination: str | Destination, group: str | None = None, *, pattern: str | None = None, **options: Any
    ) -> Consumer:
        """A consumer of a queue (no group) or of a group's subscription to a topic. Options: `ConsumerOptions`.

        What is not declared yet is declared: `subscribe("orders", "inventory")` a topic with that subscription,
        `subscribe("jobs")` a queue. Messages published after this returns are seen.

        Raises ConfigurationError, TopologyError, DestinationNotFound (with `create=False`), UnsupportedCapability.
        """
        self._check_open("subscribe")
        chosen = config.build_options(ConsumerOptions, options, "consumer")
        if chosen.lease is not None or not chosen.heartbeat:
            self.capabilities.require("lease", self.name, "leave out lease and heartbeat")
        if chosen.exactly_once:
            self.capabilities.require(
                "transactions",
                self.name,
                "use delivery='at-least-once' and an inbox (messaging_sql.Inbox), which has each effect happen once",
            )
        source = self._source(destination, group, pattern)
        consumer = self._consumer(source, chosen)
        consumer.on_close = self._forget
        with self._lock:
            if not self._closed:
                self._consumers.append(consumer)
                return consumer
        consumer.close()
        raise Closed("subscribe: the broker was closed meanwhile")

    def _consumer(self, source: Source, options: ConsumerOptions) -> Consumer:
        if options.exactly_once:
            transactional = self._driver.transactional_receiver(source, options)
            producer = Producer(self._driver, self._resolve, ProducerOptions(), transactional.sender)
            return Consumer(transactional, source, self.capabilities, self.name, options, producer)
        receiver = self._driver.receiver(source, options)
        if source.ordered:
            receiver = OrderedReceiver(receiver, options.prefetch)
        return Consumer(receiver, source, self.capabilities, self.name, options)

    def dead_letters(self, destination: str | Destination, group: str | None = None, **options: Any) -> Consumer:
        """A consumer of the dead-letter queue of a queue or subscription. Raises TopologyError when it has none."""
        return self.subscribe(self._dead_letter_queue(destination, group), **options)

    def dead_letter_queue(self, destination: str | Destination, group: str | None = None) -> DeadLetterQueue:
        """To look at, redrive and purge the dead letters of a queue or subscription. Raises TopologyError.

        Nothing is declared: dead letters are there for whoever looks, also where what they came from is gone.
        """
        self._check_open("dead_letter_queue")
        if isinstance(destination, str):
            known = self._resolve(destination)
        else:
            known = self._topology.merge(destination).get(destination.name) or destination
        return DeadLetterQueue(self._driver, _source_in(known, group))

    def depth(self, destination: str | Destination, group: str | None = None) -> int:
        """Messages waiting in a queue or subscription, as exactly as the broker tells."""
        self._check_open("depth")
        return self._driver.depth(self._known_source(destination, group))

    def dead_letter_depth(self, destination: str | Destination, group: str | None = None) -> int:
        """Messages waiting in the dead-letter queue of a queue or subscription."""
        self._check_open("dead_letter_depth")
        return self._driver.depth(Source(self._dead_letter_queue(destination, group)))

    def source(self, destination: str | Destination, group: str | None = None) -> Source:
        """The declared queue or subscription that is meant. Asks the broker nothing. Raises TopologyError, Closed."""
        self._check_open("source")
        return self._known_source(destination, group)

    def purge(self, destination: str | Destination, group: str | None = None) -> None:
        """Drops every message waiting in a queue or subscription."""
        self._check_open("purge")
        self._driver.purge(self._known_source(destination, group))

    def delete(self, topology: Topology | Destination | Iterable[Destination]) -> None:
        """Deletes queues and topics with their subscriptions, dead-letter and retry queues, and what is in them."""
        self._check_open("delete")
        unwanted = Topology.of(topology)
        self._driver.delete(unwanted)
        with self._lock:
            gone = {d.name for d in unwanted} | {s.dead_letter.name for s in unwanted.sources if s.dead_letter}
            self._topology = Topology(*(d for d in self._topology if d.name not in gone))

    def ping(self) -> None:
        """Asks the broker for a sign of life. Raises BrokerUnavailable within `connect_timeout` seconds."""
        self._check_open("ping")
        self._driver.ping()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Closes consumers, flushes and closes producers, disconnects. Bounded, idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumers, producers = list(self._consumers), [*self._producers]
            if self._producer is not None:
                producers.append(self._producer)
        if self._pid != os.getpid():
            return
        with ExitStack() as stack:  # from the last to the first, and one that fails does not keep the others open
            stack.callback(self._driver.close)
            for producer in producers:
                stack.callback(producer.close)
            stack.callback(close_together, consumers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _default_producer(self) -> Producer:
        producer = self._producer
        if producer is None or self._closed:
            self._check_open("publish")
            with self._lock:
                self._check_open("publish")
                if self._producer is None:
                    self._producer = Producer(self._driver, self._resolve, ProducerOptions())
                producer = self._producer
        return producer

    def _resolve(self, destination: str | Destination) -> Destination:
        self._check_open("publish")
        name = destination if isinstance(destination, str) else destination.name
        known = self._topology.get(name)
        if isinstance(destination, str):
            if known is None:
                raise TopologyError(
                    f"{name!r} is not declared, so whether it is a queue or a topic is not known: give connect a "
                    f"topology, or publish to Queue({name!r}) or Topic({name!r})"
                )
            return known
        if known is None or (known != destination and self._topology.merge(destination) != self._topology):
            self.declare(destination)
        return self._topology.get(name) or destination

    def _source(self, destination: str | Destination, group: str | None, pattern: str | None = None) -> Source:
        """The source that is meant, declared. Raises TopologyError when it contradicts what is declared."""
        name = destination if isinstance(destination, str) else destination.name
        known = self._topology.get(name)
        if not isinstance(destination, str):
            known = self._topology.merge(destination).get(name)
        if group is None:
            wanted: Destination = known or Queue(name)
            if not isinstance(wanted, Queue):
                raise TopologyError(f"{name!r} is a topic: subscribe to it with a group, subscribe({name!r}, 'group')")
            if pattern is not None:
                raise TopologyError(f"{name!r} is a queue: a pattern needs a topic and a group")
            self._declare_if_new(wanted)
            return Source(wanted)
        topic = known or Topic(name)
        if not isinstance(topic, Topic):
            raise TopologyError(f"{name!r} is a queue: it has no groups, subscribe({name!r})")
        subscription = topic.subscription(group) or Subscription(group, pattern or MATCH_ALL)
        if pattern is not None and subscription.pattern != pattern:
            raise TopologyError(f"group {group!r} of {name!r} is declared with pattern {subscription.pattern!r}")
        self._declare_if_new(Topic(name, subscription, ordered=topic.ordered, native=topic.native))
        return Source(self._topology.get(name) or topic, subscription)

    def _declare_if_new(self, destination: Destination) -> None:
        if self._topology.merge(destination) != self._topology:
            self.declare(destination)

    def _known_source(self, destination: str | Destination, group: str | None) -> Source:
        return _source_in(self._resolve(destination), group)

    def _dead_letter_queue(self, destination: str | Destination, group: str | None) -> Queue:
        source = self._known_source(destination, group)
        queue = source.dead_letter
        if queue is None:
            raise TopologyError(f"{source} is declared without a dead-letter queue")
        return queue

    def _check_supported(self, topology: Topology) -> None:
        able = self.capabilities
        for destination in topology:
            able.require("topics" if isinstance(destination, Topic) else "queues", self.name)
            if destination.ordered:
                able.require("ordering", self.name)
            parts = [destination, *(destination.subscriptions if isinstance(destination, Topic) else ())]
            for part in parts:
                _check_native(part.native, destination.name)
                if isinstance(part, Subscription) and part.pattern != "#":
                    able.require("patterns", self.name)

    def _forget(self, consumer: Consumer) -> None:
        with self._lock:
            if consumer in self._consumers:
                self._consumers.remove(consumer)

    def _check_open(self, what: str) -> None:
        if self._closed:
            if self._pid != os.getpid():
                raise Closed(f"{what}: this broker was connected before the fork; connect again in the child")
            raise Closed(f"{what}: the broker is closed")


_living: weakref.WeakSet[Broker] = weakref.WeakSet()


def _close_in_child() -> None:
    for broker in _living:
        broker._closed = True
        broker._lock, broker._declaring = Lock(), Lock()
        for producer in (broker._producer, *broker._producers):
            if producer is not None:
                producer.abandon()
        for consumer in broker._consumers:
            consumer.abandon()


os.register_at_fork(after_in_child=_close_in_child)


def _checked_delays(delays: Sequence[float]) -> list[float]:
    for delay in delays:
        if not 0 < delay < math.inf:  # also refuses NaN
            raise ConfigurationError(f"the delay of a retry must be a positive number of seconds, not {delay!r}")
    return sorted(set(delays))


def _check_native(options: Mapping[str, Mapping[str, Any]], name: str) -> None:
    if not options:
        return
    known = adapters.names()
    for adapter in options:
        if adapter not in known:
            raise ConfigurationError(
                f"{name!r}: native options for {adapter!r}; installed adapters: {', '.join(known)}"
            )


def _source_in(destination: Destination, group: str | None) -> Source:
    if isinstance(destination, Queue):
        if group is not None:
            raise TopologyError(f"{destination.name!r} is a queue: it has no groups")
        return Source(destination)
    groups = ", ".join(s.group for s in destination.subscriptions) or "none"
    if group is None:
        raise TopologyError(f"{destination.name!r} is a topic: say which group is meant; declared: {groups}")
    subscription = destination.subscription(group)
    if subscription is None:
        raise TopologyError(f"topic {destination.name!r} has no group {group!r}; declared: {groups}")
    return Source(destination, subscription)
