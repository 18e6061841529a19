"""Share groups (KIP-932): whether the cluster has them, which queues use them, and their settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from confluent_kafka import KafkaException, ShareConsumer
from confluent_kafka.admin import ResourceType

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    MessagingError,
    TopologyError,
    UnsupportedCapability,
)
from messaging.topology import Queue, Source

from .admin import Admin
from .errors import translate
from .groups import group_of, lag_of
from .options import KafkaOptions
from .server_version import SINCE_4_2
from .share_member import Membership
from .share_state import has_begun, share_lag

log = logging.getLogger(__name__)

LOCK = 60.0
"""Seconds that the broker keeps a record for one consumer: the most it allows by default, its own default being 30."""

_BEGUN_WITHIN = 45.0
"""Seconds to wait until a new group has begun in every partition. The broker tries again 30 seconds after it failed
(`group.share.initialize.retry.interval.ms`), as it does when the share coordinator's own topic is just being made."""

RESET = "share.auto.offset.reset"
_LOCK = "share.record.lock.duration.ms"
_ISOLATION = "share.isolation.level"
_SINCE_4_2 = "streams.initial.rebalance.delay.ms"


def share_group(queue: str) -> str:
    """The share group that reads a queue."""
    return f"{queue}--share"


def retry_name(queue: str) -> str:
    """The topic that a share queue has beside its own, for copies of nacked and long-held messages, and its group."""
    return f"{queue}--retry"


class ShareGroups:
    """Decides which queues are read through share groups. `available` is settled by `probe`, before any other use."""

    def __init__(self, admin: Admin, options: KafkaOptions) -> None:
        self._admin = admin
        self._options = options
        self._mode = options.queues
        self.available = False
        self.longest_lock = LOCK
        """Seconds that the broker allows for a lock, when that is less."""

    def probe(self, metadata_version: Callable[[], int | None]) -> None:
        """Learns whether to use share groups. metadata_version: asks a broker without the client library.

        The client library shows neither the broker's version nor its finalized features. A setting that groups have
        since 4.2 tells the version, and the broker's own word to a user who may not see settings; whether the feature
        is switched on shows in the first receiver, which fails loudly. Raises UnsupportedCapability when they were
        asked for in vain, BrokerUnavailable, and AuthenticationFailed when nothing tells: a program that takes a queue
        for a consumer group's, beside others that read it through a share group, would get every message once more.
        """
        if self._mode == "group":
            return
        try:
            self.available = _SINCE_4_2 in self._admin.config(ResourceType.GROUP, "anybroker-probe")
        except BrokerUnavailable:
            raise
        except AuthenticationFailed as error:
            level = metadata_version()
            if level is None and self._mode == "auto":
                raise AuthenticationFailed(
                    f"cannot tell whether the cluster has share groups: {error}; or connect with queues=share (Kafka "
                    "4.2 and later) or queues=group, as the other programs do that use these queues"
                ) from error
            self.available = level is None or level >= SINCE_4_2
        except MessagingError as error:
            log.warning("cannot tell whether the cluster has share groups, so queues use consumer groups: %s", error)
        self._check_wanted()

    def uses(self, source: Source) -> bool:
        """Whether this source is read through a share group. They have no order, so ordered queues never are."""
        return self.available and isinstance(source.destination, Queue) and not source.ordered

    def settings(self) -> dict[str, str]:
        """Of the share group of a queue."""
        return {
            RESET: "earliest",
            _LOCK: str(round(min(LOCK, self.longest_lock) * 1000)),
            _ISOLATION: "read_committed",  # as consumer groups do: what a transaction took back is not delivered
        }

    def assume(self, in_cluster: bool) -> None:
        """Instead of `probe`: the cluster has them, or has not. Raises UnsupportedCapability as that does."""
        self.available = in_cluster and self._mode != "group"
        self._check_wanted()

    def _check_wanted(self) -> None:
        if self._mode == "share" and not self.available:
            raise UnsupportedCapability(
                "queues=share needs share groups, so Kafka 4.2 or later: use queues=group, or leave it at auto"
            )

    def begin(self, source: Source, create: bool) -> None:
        """Makes the share group read from the beginning and keep locks as long as it may. Idempotent."""
        group = share_group(source.name)
        if self._admin.committed(group_of(source), source.destination.name):
            raise TopologyError(
                f"{source} is read by consumer group {group_of(source)!r} and would begin anew as a share group: "
                f"declare it as it is (ordered, or with queues=group), or let it be emptied and delete it"
            )
        wanted = self.settings()
        actual = self._admin.config(ResourceType.GROUP, group)
        if all(actual.get(key) == value for key, value in wanted.items()):
            return
        if not create and actual.get(RESET) != "earliest":
            raise TopologyError(
                f"share group {group!r} has {RESET}={actual.get(RESET)}, so it would miss messages: declare {source} "
                "with create=True, or set it to earliest with kafka-configs.sh --alter --entity-type groups"
            )
        if create:
            self._admin.configure(ResourceType.GROUP, group, wanted)
            self._begin_everywhere(source)

    def check_unused(self, source: Source) -> None:
        """Raises TopologyError when a queue that is to be read by a consumer group is read by a share group."""
        group = share_group(source.name)
        try:
            used = self._admin.config(ResourceType.GROUP, group).get(RESET) == "earliest"
        except MessagingError as error:
            log.warning("cannot tell whether %s is read by share group %r too: %s", source, group, error)
            return
        if used:
            raise TopologyError(
                f"{source} is read by share group {group!r}, unordered, and would begin anew as a consumer group: "
                f"declare it unordered and go on with queues=share, or let it be emptied and delete it"
            )

    def lock(self, source: Source) -> float:
        """Seconds that the broker keeps a record of `source` for one consumer."""
        text = self._admin.config(ResourceType.GROUP, share_group(source.name)).get(_LOCK) or ""
        return int(text) / 1000 if text.isdigit() else LOCK / 2

    def forget(self, queue: str) -> None:
        """Removes the settings of a queue's share group, if there are share groups."""
        if self.available:
            settings = dict.fromkeys((RESET, _LOCK, _ISOLATION))
            self._admin.configure(ResourceType.GROUP, share_group(queue), settings)

    def _begin_everywhere(self, source: Source) -> None:
        """Has the broker begin a new group in every partition, which it does for a member; it delivers nothing before.

        The first receiver would do, but it hears of its partitions a heartbeat (5 seconds) late, or half a minute.
        """
        group, topic = share_group(source.name), source.destination.name
        deadline = time.monotonic() + _BEGUN_WITHIN
        while time.monotonic() < deadline:
            self._join_and_leave(source, deadline)
            if has_begun(self._admin, self._options, group, topic):
                return
        log.warning(
            "share group %r has not begun in every partition after %g s: what is there is delivered late",
            group,
            _BEGUN_WITHIN,
        )

    def _join_and_leave(self, source: Source, deadline: float) -> None:
        member = Membership()
        config = self._options.client(group_id=share_group(source.name), share_acknowledgement_mode="explicit")
        try:
            consumer = ShareConsumer(config | member.config)
            try:
                consumer.subscribe([source.destination.name])
            except KafkaException:
                consumer.close()
                raise
            member.leave(consumer, deadline)
        except KafkaException as error:
            raise translate(error, f"share group of {source}") from error

    def lag(self, source: Source) -> int:
        """Messages not yet accepted, in the queue's topic and in its retry topic."""
        retry = retry_name(source.name)
        lag = share_lag(self._admin, self._options, share_group(source.name), source.destination.name)
        if self._admin.partitions([retry])[retry] is None:
            return lag  # nobody has consumed it yet
        return lag + lag_of(self._admin, retry, retry)
