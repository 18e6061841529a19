"""Questions and orders to the cluster, with deadlines and our errors."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    DestinationNotFound,
    MessagingError,
    TopologyError,
    UnsupportedCapability,
)

from .errors import translate
from .options import KafkaOptions
from .settled_ahead import mark_of

T = TypeVar("T")

DEFAULT_LIMIT = 1_048_588
"""Kafka's default `message.max.bytes`."""

RECORD_OVERHEAD = 512
"""What a record batch adds around one message, bytes, rounded up generously."""

_MOVING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
"""A partition that is just made, or whose broker just left: asked again a moment later."""

_COORDINATOR_MOVING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._WAIT_COORD,
)
"""The node that looks after a group is another one by now, or is not ready yet: asked again a moment later."""

_NOT_OURS = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.GROUP_ID_NOT_FOUND)
"""What the coordinator says to who commits from outside for a group with members."""

_NO_BROKER = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)
"""Nobody answered the client."""

_ROUND = 4.0
"""Seconds that one attempt of several may take."""

Offsets = dict[int, int]
"""An offset a partition."""


class Admin:
    """The AdminClient, waited for. Every method from any thread; each bounded by `timeout` seconds.

    `_lock` guards `_refusal` and `_known`.
    """

    def __init__(self, options: KafkaOptions, timeout: float = 15.0) -> None:
        self._options = options
        self._timeout = timeout
        self._lock = threading.Lock()
        self._refusal: KafkaError | None = None
        self._known: dict[str, tuple[int, float]] = {}
        self.default_limit = DEFAULT_LIMIT - RECORD_OVERHEAD

    @cached_property
    def client(self) -> AdminClient:
        """Made by the first question, since it connects by itself. `connect` asks it, before there are threads."""
        try:
            return AdminClient(self._options.client(error_cb=self._on_error, allow_auto_create_topics=False))
        except KafkaException as error:
            raise translate(error, "kafka config") from error

    def connect(self, where: str, timeout: float) -> None:
        """Waits for a broker. Raises BrokerUnavailable or AuthenticationFailed within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        another_at = deadline - timeout / 2
        with self._lock:
            self._refusal = None
        while True:
            remaining = deadline - time.monotonic()
            if time.monotonic() > another_at:
                self._replace_client()
                another_at = deadline
            try:
                # One topic only: a cluster may have thousands. Short turns, because a refusal comes by callback.
                self.client.list_topics("__consumer_offsets", timeout=max(min(remaining, 1.0), 0.05))
                return
            except KafkaException as error:
                self.client.poll(0)
                with self._lock:
                    refusal = self._refusal
                if refusal is not None:
                    raise AuthenticationFailed(f"{where} refused the credentials: {refusal.str()}") from error
                translated = translate(error, where, BrokerUnavailable)
                if not isinstance(translated, BrokerUnavailable):
                    raise translated from error
                if deadline <= time.monotonic():
                    raise BrokerUnavailable(
                        f"no Kafka broker at {where} answered within {timeout:g} s ({error.args[0].str()}); "
                        "check the address, and that the brokers advertise one that is reached from here"
                    ) from error

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            with self._lock:
                self._refusal = error

    def partitions(self, topics: Iterable[str]) -> dict[str, int | None]:
        """How many partitions each topic has, None for one that is missing."""
        names = list(topics)
        if not names:
            return {}
        found: dict[str, int | None] = {}
        futures = self._call(lambda: self.client.describe_topics(TopicCollection(names), request_timeout=self._timeout))
        for name, future in futures.items():
            try:
                found[name] = len(self._result(future, f"topic {name!r}").partitions)
            except DestinationNotFound:
                found[name] = None
        return found

    def topics(self) -> list[str]:
        """The names of all topics that the user may see."""
        return list(self._metadata(None, self._timeout, "list topics").topics)

    def require(self, topic: str) -> int:
        """How many partitions `topic` has. Raises DestinationNotFound."""
        count = self.partitions([topic])[topic]
        if count is None:
            raise DestinationNotFound(f"topic {topic!r} does not exist: declare it with create=True")
        return count

    def replication(self, topic: str) -> int:
        """How many brokers keep each partition of `topic`, at least."""
        return min(len(p.replicas) for p in self._result(self.ask_topic(topic), f"topic {topic!r}").partitions)

    def topic_id(self, topic: str) -> Any:
        """The topic's id: it changes when a topic is deleted and made again. Raises DestinationNotFound."""
        return self._result(self.ask_topic(topic), f"topic {topic!r}").topic_id

    def ask_topic(self, topic: str) -> Future[Any]:
        """The client's description of a topic, without waiting for it."""
        futures = self._call(
            lambda: self.client.describe_topics(TopicCollection([topic]), request_timeout=self._timeout)
        )
        return futures[topic]

    def learn(self, topic: str, timeout: float) -> None:
        """Checks that `topic` exists and learns what it takes. Raises DestinationNotFound."""
        futures = self._call(lambda: self.client.describe_topics(TopicCollection([topic]), request_timeout=timeout))
        try:
            self._result(futures[topic], f"topic {topic!r}", timeout)
        except DestinationNotFound as error:
            raise DestinationNotFound(
                f"publish to {topic!r}: there is no such topic; declare it with create=True. Nothing was sent"
            ) from error
        self.learn_settings(topic)

    def learn_settings(self, topic: str) -> None:
        """As `learn`, for a topic that exists."""
        try:
            settings = self.config(ResourceType.TOPIC, topic)
        except MessagingError:
            settings = {}  # the right to publish does not include the right to read settings
        limit, keeps = settings.get("max.message.bytes") or "", settings.get("retention.ms") or ""
        expires = keeps.isdigit() and "delete" in (settings.get("cleanup.policy") or "")
        with self._lock:
            self._known[topic] = (
                int(limit) - RECORD_OVERHEAD if limit.isdigit() else self.default_limit,
                int(keeps) / 1000 if expires else math.inf,
            )

    def knows(self, topic: str) -> bool:
        """Whether `topic` was there when it was last looked for."""
        return topic in self._known

    def forget(self, topic: str) -> None:
        """`topic` is gone."""
        with self._lock:
            self._known.pop(topic, None)

    def limit(self, topic: str) -> int:
        """Bytes of key, headers and body that `topic` takes; the cluster's default while unknown."""
        known = self._known.get(topic)
        return self.default_limit if known is None else known[0]

    def largest(self, topic: str) -> int:
        """The `max.message.bytes` of `topic`; the cluster's for a user who may not see it."""
        try:
            text = self.config(ResourceType.TOPIC, topic).get("max.message.bytes") or ""
        except AuthenticationFailed:
            text = ""
        return int(text) if text.isdigit() else self.default_limit + RECORD_OVERHEAD

    def keeps(self, topic: str) -> float:
        """Seconds that `topic` keeps a record, counted from its timestamp; infinite while unknown."""
        known = self._known.get(topic)
        return math.inf if known is None else known[1]

    def check_delay(self, delay: float, *topics: str) -> None:
        """Raises UnsupportedCapability when one of `topics` would delete a message that waits `delay` seconds."""
        for topic in topics:
            if delay > self.keeps(topic):
                raise UnsupportedCapability(
                    f"nack: topic {topic!r} keeps a message for {self.keeps(topic):g} s, not {delay:g} s: "
                    f"raise the topic's retention.ms"
                )

    def create(self, topic: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """Creates a topic and waits until every partition has a leader. Returns False when it was there already."""
        made = True
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replication, config=dict(config))
        futures = self._call(lambda: self.client.create_topics([new], request_timeout=self._timeout))
        try:
            with _needs("Create", ResourceType.TOPIC, topic):
                self._result(futures[topic], f"create topic {topic!r}", default=TopologyError)
        except MessagingError as error:
            if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            made = False
        self._until(lambda: self._has_leaders(topic), f"topic {topic!r} was created but is not served")
        return made

    def grow(self, topic: str, partitions: int) -> None:
        """Raises the number of partitions; somebody else having done so already is fine."""
        futures = self._call(lambda: self.client.create_partitions([NewPartitions(topic, partitions)]))
        try:
            self._result(futures[topic], f"grow topic {topic!r} to {partitions} partitions", default=TopologyError)
        except TopologyError:
            if (self.partitions([topic])[topic] or 0) < partitions:
                raise
        self._until(
            lambda: (self.partitions([topic])[topic] or 0) >= partitions and self._has_leaders(topic),
            f"topic {topic!r} did not grow to {partitions} partitions",
        )

    def _has_leaders(self, topic: str) -> bool:
        metadata = self._metadata(topic, self._timeout, f"topic {topic!r}").topics[topic]
        return metadata.error is None and all(p.leader >= 0 for p in metadata.partitions.values())

    def with_leader(self, topic: str, timeout: float) -> set[int]:
        """The partitions of `topic` that have a leader."""
        metadata = self._metadata(topic, timeout, f"topic {topic!r}").topics[topic]
        return {number for number, partition in metadata.partitions.items() if partition.leader >= 0}

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Deletes topics and waits until they are gone. Missing ones are no error."""
        names = list(topics)
        if not names:
            return
        for name, future in self._call(lambda: self.client.delete_topics(names)).items():
            try:
                self._result(future, f"delete topic {name!r}")
            except DestinationNotFound:
                pass
            self.forget(name)
        self._until(lambda: not any(self.partitions(names).values()), f"topics {names} were not deleted")

    def delete_groups(self, groups: Iterable[str]) -> None:
        """Deletes consumer groups. Missing ones and ones with members (their topics are gone anyway) are no error."""
        left = set(groups)

        def ask() -> bool:
            if not left:
                return True
            futures = self._call(lambda: self.client.delete_consumer_groups(sorted(left), request_timeout=_ROUND))
            for name, future in futures.items():
                try:
                    self._result(future, f"delete group {name!r}")
                except MessagingError as error:
                    if _code(error) in (KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, *_COORDINATOR_MOVING):
                        continue  # the client sometimes waits for a coordinator that is there
                    if _code(error) not in (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP):
                        raise
                left.discard(name)
            return not left

        self._until(ask, "delete groups: no answer from their coordinator")

    def committed(self, group: str, topic: str) -> Offsets:
        """What `group` has committed of `topic`; empty when nothing, or there is no such group."""
        return {p.partition: p.offset for p in self.commits(group, topic)}

    def commit_marks(self, group: str, topic: str) -> set[str]:
        """The kinds of order that were committed beside the offsets of `group`; empty when nothing is committed."""
        return {mark_of(p.metadata) for p in self.commits(group, topic)}

    def commits(self, group: str, topic: str) -> list[TopicPartition]:
        """As `committed`, with the text beside each offset."""
        # Through a consumer of the group that never joins it. An AdminClient asks the same, but while the group's
        # coordinator moves or loads, as in the first seconds of a cluster, that ends the process (librdkafka #5040).
        count = self.partitions([topic])[topic] or 0
        if not count:
            return []
        what = f"offsets of group {group!r}"
        consumer = self._outsider(group)
        found: list[TopicPartition] = []

        def ask() -> bool:
            try:
                found[:] = consumer.committed([TopicPartition(topic, p) for p in range(count)], self._timeout)
            except KafkaException as error:
                if error.args[0].code() in _COORDINATOR_MOVING:
                    return False
                if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                    raise translate(error, what) from error
            return True

        try:
            self._until(ask, f"{what}: its coordinator is not ready")
        finally:
            consumer.close()
        for partition in found:
            if partition.error is not None:
                raise translate(partition.error, what)
        return [p for p in found if p.offset >= 0]

    def commit(self, group: str, topic: str, offsets: Offsets, mark: str) -> bool:
        """Commits for a group without members. Returns False when it has some: then it is theirs to commit."""
        partitions = [TopicPartition(topic, p, o, mark) for p, o in offsets.items()]
        what = f"commit offsets of group {group!r}"
        # Through a consumer as well: an AdminClient that loses its coordinator ends the process (librdkafka #5397).
        consumer = self._outsider(group)
        committed = True

        def ask() -> bool:
            nonlocal committed
            try:
                for partition in consumer.commit(offsets=partitions, asynchronous=False) or ():
                    if partition.error is not None:
                        raise KafkaException(partition.error)
            except KafkaException as error:
                code = error.args[0].code()
                if code in _COORDINATOR_MOVING:
                    return False
                if code not in _NOT_OURS:
                    raise translate(error, what) from error
                committed = False
            return True

        try:
            self._until(ask, f"{what}: its coordinator is not ready")
        finally:
            consumer.close()
        return committed

    def _outsider(self, group: str) -> Consumer:
        """A consumer that never joins its group."""
        config = self._options.client(
            group_id=group,
            enable_auto_commit=False,
            socket_timeout_ms=round(self._timeout * 1000),
            session_timeout_ms=1,  # never used, and the client refuses a max.poll.interval.ms of the user's below it
        )
        return Consumer(config)

    def offsets(self, topic: str, spec: OffsetSpec, count: int | None = None) -> Offsets:
        """The offset that `spec` means (earliest, latest, at a time) in each partition."""
        left = set(range(self.require(topic) if count is None else count))
        found: Offsets = {}

        def ask() -> bool:
            request = {TopicPartition(topic, p): spec for p in left}
            futures = self._call(lambda: self.client.list_offsets(request, request_timeout=self._timeout))
            for partition, future in futures.items():
                try:
                    found[partition.partition] = self._result(future, f"offsets of topic {topic!r}").offset
                    left.discard(partition.partition)
                except MessagingError as error:
                    if _code(error) not in _MOVING:
                        raise
            return not left

        self._until(ask, f"topic {topic!r} has partitions without a leader")
        return found

    def ends(self, topic: str) -> Offsets:
        return self.offsets(topic, OffsetSpec.latest())

    def delete_records(self, topic: str, before: Offsets) -> None:
        """Deletes every record below the given offsets."""
        partitions = [TopicPartition(topic, p, o) for p, o in before.items()]

        def ask() -> bool:
            moving = False
            for future in self._call(lambda: self.client.delete_records(partitions)).values():
                try:
                    self._result(future, f"purge topic {topic!r}")
                except MessagingError as error:
                    if _code(error) not in _MOVING:
                        raise
                    moving = True
            return not moving

        self._until(ask, f"topic {topic!r} has partitions without a leader")

    def config(self, kind: ResourceType, name: str) -> dict[str, str | None]:
        """The settings of a topic, broker or group."""
        futures = self._call(
            lambda: self.client.describe_configs([ConfigResource(kind, name)], request_timeout=self._timeout)
        )
        (future,) = futures.values()
        with _needs("DescribeConfigs", kind, name):
            return {key: entry.value for key, entry in self._result(future, f"settings of {name!r}").items()}

    def configure(self, kind: ResourceType, name: str, settings: Mapping[str, str | None]) -> None:
        """Changes settings of a topic, broker or group, None to the default; the others stay."""
        entries = [
            ConfigEntry(
                key, value, incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
            )
            for key, value in settings.items()
        ]
        resource = ConfigResource(kind, name, incremental_configs=entries)
        (future,) = self._call(lambda: self.client.incremental_alter_configs([resource])).values()
        with _needs("AlterConfigs", kind, name):
            self._result(future, f"change settings of {name!r}", default=TopologyError)

    def a_broker(self) -> str:
        """The id of any broker."""
        brokers = self._metadata("__consumer_offsets", self._timeout, "list brokers").brokers
        if not brokers:
            raise BrokerUnavailable("list brokers: the cluster names none, as while it starts")
        return str(next(iter(brokers)))

    def _call(self, call: Callable[[], T]) -> T:
        self.client.poll(0)  # hands on the log lines that have come meanwhile
        try:
            return call()
        except KafkaException as error:
            raise translate(error, "kafka admin request") from error

    def _metadata(self, topic: str | None, timeout: float, what: str) -> ClusterMetadata:
        try:
            if topic is None:
                return self.client.list_topics(timeout=timeout)
            return self.client.list_topics(topic, timeout=timeout)
        except KafkaException as error:
            if error.args[0].code() in _NO_BROKER:
                self._replace_client()
            raise translate(error, what) from error

    def _result(
        self,
        future: Future[T],
        what: str,
        timeout: float | None = None,
        default: type[MessagingError] = MessagingError,
    ) -> T:
        try:
            return future.result((self._timeout if timeout is None else timeout) + 1.0)
        except KafkaException as error:
            translated = translate(error, what, default)
            if _code(translated) in _NO_BROKER:
                self._replace_client()
            raise translated from error
        except TimeoutError as error:
            self._replace_client()
            raise BrokerUnavailable(f"{what}: no answer within {self._timeout:g} s") from error

    def _replace_client(self) -> None:
        """After restarts of the broker a client may wait for the controller, or for any broker (BrokerWatch), in vain,
        for ever; a new one does not.

        What other threads ask the old one ends at its own deadline.
        """
        self.__dict__.pop("client", None)

    def _until(self, ready: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + self._timeout
        pause = threading.Event()
        while not ready():
            if time.monotonic() >= deadline:
                raise BrokerUnavailable(f"{otherwise} after {self._timeout:g} s")
            pause.wait(0.05)  # between two questions to the cluster


@contextmanager
def _needs(right: str, kind: ResourceType, name: str) -> Iterator[None]:
    """Says which right is missing, by Kafka's names."""
    try:
        yield
    except AuthenticationFailed as error:
        where = "the cluster" if kind == ResourceType.BROKER else f"{kind.name.lower()} {name!r}"
        said = str(error).rstrip(".")
        raise AuthenticationFailed(f"{said}: grant this user {right} on {where}") from error.__cause__


def _code(error: MessagingError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) and isinstance(cause.args[0], KafkaError) else None
