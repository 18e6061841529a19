"""The driver: connects, declares, and makes senders and receivers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Any, ClassVar, TypeVar

import redis
from redis.exceptions import RedisError

from messaging.capabilities import Capabilities, emulated, native, unsupported
from messaging.driver import Driver, Receiver, Sender
from messaging.errors import ConfigurationError, MessageTooLarge, UnsupportedCapability
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Destination, Queue, Source, Topic, Topology, sources_of
from messaging_redis.client import Client, translate
from messaging_redis.options import RedisOptions
from messaging_redis.receiver import RedisReceiver
from messaging_redis.sender import RedisSender
from messaging_redis.wire import encode

log = logging.getLogger(__name__)

T = TypeVar("T", RedisSender, RedisReceiver)

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Ours, far below Redis's own 512 MiB: one thread serves everybody, and a message of that size holds it up."""

CAPABILITIES = Capabilities(
    queues=native("a stream with one consumer group"),
    topics=emulated("a stream a subscription; the publish script adds to all of them at once"),
    patterns=unsupported("streams have no filter"),
    ordering=unsupported("the consumers of a group take entries in any order"),
    nack_delay=emulated("a sorted set of the times at which messages may be delivered again"),
    dead_letter=emulated("added to the dead-letter stream and acknowledged in one script"),
    delayed_queue=emulated("a sorted set, moved into the stream by whoever fetches"),
    delayed_topic=emulated("a sorted set a subscription, moved into the stream by whoever fetches"),
    ttl=emulated("dropped when received"),
    mandatory=emulated("the publish script counts the subscriptions"),
    lease=emulated("a sorted set of the times at which leases end, by the server's clock"),
    replay=unsupported("what is acknowledged is deleted"),
    lag=native("XLEN"),
    transactions=unsupported("the consumer's position and the caller's work are not one transaction"),
    max_message_bytes=MAX_MESSAGE_BYTES,
)


class RedisDriver(Driver):
    """Redis Streams, Redis 7 or later."""

    name: ClassVar[str] = "redis"
    Options: ClassVar[type[Any]] = RedisOptions
    capabilities = CAPABILITIES
    surely_fits: ClassVar[int] = MAX_MESSAGE_BYTES - 1024

    def __init__(self, options: RedisOptions) -> None:
        super().__init__(options)
        self._client = Client(options, options.connect_timeout)
        self._lock = Lock()
        self._open: list[RedisSender | RedisReceiver] = []

    @classmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        return [("Redis", CAPABILITIES)]

    def open(self) -> None:
        try:
            about = self._client.redis.info("server", "persistence")
        except RedisError as error:
            host, port = self.options.address
            raise translate(error, f"connect to {host}:{port}") from error
        if int(str(about["redis_version"]).partition(".")[0]) < 7:
            raise UnsupportedCapability(f"Redis {about['redis_version']} is too old: 7 or later is needed")
        if not about.get("aof_enabled"):
            log.warning("Redis runs without its append-only file: a restart loses messages; set appendonly yes")

    def declare(self, topology: Topology, create: bool) -> None:
        for destination in topology:
            _check_native(destination)
            kinds: dict[str, str] = {destination.name: "queue" if isinstance(destination, Queue) else "topic"}
            for source in sources_of(destination):
                kinds.setdefault(source.name, "subscription")
                if source.dead_letter is not None:
                    kinds[source.dead_letter.name] = "queue"
            flat = [text for pair in kinds.items() for text in pair]
            self._client.call("declare", destination.name, int(create), *flat)

    def delete(self, topology: Topology) -> None:
        for destination in topology:
            whole = isinstance(destination, Topic) or destination.dead_letter
            self._client.call("delete", destination.name, int(whole))

    def check(self, message: Message, destination: Destination) -> None:
        size = sum(map(len, encode(message)))
        if size > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"publish to {destination.name!r}: body and headers are {size} bytes, redis takes {MAX_MESSAGE_BYTES}; "
                f"nothing was sent: split it, or send a reference to where it is stored"
            )

    def sender(self, options: ProducerOptions) -> Sender:
        # A part of it, since a message may have to wait behind one that gets no answer before it is tried itself.
        timeout = min(self.options.connect_timeout, options.timeout / 3)
        return self._remember(RedisSender(Client(self.options, timeout), options))

    def receiver(self, source: Source, options: ConsumerOptions) -> Receiver:
        self._client.call("count", source.name)
        lease = self.options.lease if options.lease is None else options.lease
        return self._remember(RedisReceiver(self._client, source, options, lease))

    def depth(self, source: Source) -> int:
        total, handed_out = self._client.call("count", source.name)
        return int(total - handed_out)

    def purge(self, source: Source) -> None:
        self._client.call("purge", source.name)

    def ping(self) -> None:
        try:
            self._client.redis.ping()
        except RedisError as error:
            raise translate(error, "ping") from error

    @property
    def native(self) -> redis.Redis:
        return self._client.redis

    def close(self) -> None:
        with self._lock:
            left, self._open = self._open, []
        for each in left:
            if isinstance(each, RedisSender):
                each.close(1.0)
            else:
                each.close()
        self._client.close()

    def _remember(self, made: T) -> T:
        with self._lock:
            self._open = [each for each in self._open if not each.closed]
            self._open.append(made)
        return made


def _check_native(destination: Destination) -> None:
    subscriptions = () if isinstance(destination, Queue) else destination.subscriptions
    for each in (destination, *subscriptions):
        if options := each.native.get(RedisDriver.name):
            raise ConfigurationError(f"{destination.name!r}: redis takes no native options, not {', '.join(options)}")
