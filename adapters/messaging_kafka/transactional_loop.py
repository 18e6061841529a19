"""The owner thread of a consumer whose positions are committed in transactions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from messaging.delivery import Delivery
from messaging.errors import BrokerUnavailable, TransactionAborted

from .errors import translate
from .group_loop import POSITIONS_WITHIN, GroupLoop
from .records import KafkaDelivery
from .tracker import OffsetTracker


class OutOfStep(TransactionAborted):
    """What was handed out does not fit the group's position, so it has to be read from there again."""


class TransactionalLoop(GroupLoop):
    """Commits nothing by itself: a commit of its own could overtake one in a transaction. Threads: as GroupLoop."""

    def _to_commit(self, trackers: Iterable[OffsetTracker]) -> list[TopicPartition]:
        return []

    def _flush_step(self) -> None:
        flushes, self._flushes = self._flushes, []
        for _, future in flushes:
            future.set_result(None)

    # -- commands

    def position_after(
        self, deliveries: Sequence[Delivery]
    ) -> tuple[Mapping[OffsetTracker, int], list[TopicPartition], Any]:
        """Where the group is once `deliveries` are settled too, also as offsets, and as what member this is said.

        Raises TransactionAborted when some of them are somebody else's now (later the broker notices that by itself),
        OutOfStep when one before them is in no transaction.
        """
        if self.settled:
            self._drain()
        mine: dict[OffsetTracker, set[int]] = defaultdict(set)
        for delivery in deliveries:
            assert isinstance(delivery, KafkaDelivery)
            if not delivery.tracker.alive:
                raise TransactionAborted(
                    f"{self._source}: partitions were given to another consumer in the midst of a transaction, or read "
                    "anew; nothing of it happened, and its messages are delivered again"
                )
            mine[delivery.tracker].add(delivery.offset)
        positions: dict[OffsetTracker, int] = {}
        for tracker in self._trackers.values():
            position = tracker.position_after(mine[tracker])
            if mine[tracker] and position <= max(mine[tracker]):
                raise OutOfStep(
                    f"{self._source}: a message before those of the transaction is in none; nothing of it happened, "
                    "and all is delivered again"
                )
            if position > tracker.committed:
                positions[tracker] = position
        offsets = [self._position(tracker, position) for tracker, position in positions.items()]
        return positions, offsets, self._consumer.consumer_group_metadata()

    def committed(self, positions: Mapping[OffsetTracker, int]) -> None:
        """They are the group's now."""
        self._drain()
        for tracker, position in positions.items():
            tracker.committed = position

    def go_back(self) -> None:
        """Reads on from the group's positions, whatever was read or settled here since. Raises BrokerUnavailable.

        Nothing is committed: they are the group's already, and somebody else may have moved on from them.
        """
        if not self._trackers:
            return  # those it gets begin at the group's position
        try:
            found = self._consumer.committed(self._partitions(), timeout=POSITIONS_WITHIN)
            for position in found:
                if position.error is not None:  # its offset means nothing then
                    raise KafkaException(position.error)
                position.offset = max(position.offset, 0)
            self._seek(found)
        except KafkaException as error:
            raise translate(error, f"position of {self._source}", BrokerUnavailable) from error
