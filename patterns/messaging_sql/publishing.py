"""Rows of the outbox to the broker, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from messaging.broker import Broker
from messaging.errors import (
    AuthenticationFailed,
    BatchPublishFailed,
    BrokerUnavailable,
    Closed,
    InvalidMessage,
    MessagingError,
    TopologyError,
    UnsupportedCapability,
)
from messaging.message import Message
from messaging.producer import Producer
from messaging_sql.rows import message_of

_OF_THE_TOPIC = (AuthenticationFailed, TopologyError, UnsupportedCapability)
"""What no other row would fare better with."""


@dataclass
class Outcome:
    """confirmed: positions of rows that the broker has stored. failed: of those it refused, with the error.

    held: topics that cannot be published to, with the error: they are not declared, or nothing is confirmed there (a
    full queue, no leader) or allowed. broker: the broker is not there; the rest was not tried.
    """

    confirmed: list[int] = field(default_factory=list)
    failed: dict[int, MessagingError] = field(default_factory=dict)
    held: dict[str, MessagingError] = field(default_factory=dict)
    broker: MessagingError | None = None


class Publishing:
    """Publishes rows in order. timeout: seconds until a message must be confirmed. Not thread-safe."""

    def __init__(self, broker: Broker, timeout: float) -> None:
        self._broker = broker
        self._producer: Producer | None = None
        self._timeout = timeout

    def publish(self, rows: Sequence[Row[Any]], go_on: Callable[[], bool], outcome: Outcome) -> None:
        """Publishes `rows`, which are in order, and adds what became of them to `outcome`.

        go_on: asked before each part of them; when it says no, the rest is not tried. After a row that failed, those
        of its key are not tried.
        """
        for topic, group in groupby(sorted(rows, key=lambda row: row.aggregatetype), lambda row: row.aggregatetype):
            known = self._broker.topology.get(topic)
            if known is None:
                outcome.held[topic] = TopologyError(
                    f"{topic!r} is not declared: give the relay's broker a topology with that queue or topic"
                )
                continue
            failed: set[str | None] = set()
            for part in _in_parts(list(group)) if known.ordered else [list(group)]:
                if outcome.broker is not None or topic in outcome.held or not go_on():
                    break
                tried = [row for row in part if row.aggregateid not in failed]
                self._publish_part(topic, tried, outcome)
                failed |= {row.aggregateid for row in tried if row.position in outcome.failed}
            if outcome.broker is not None:
                break

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()

    def _publish_part(self, topic: str, rows: list[Row[Any]], outcome: Outcome) -> None:
        messages: list[Message] = []
        good: list[Row[Any]] = []
        for row in rows:
            try:
                messages.append(message_of(row))
                good.append(row)
            except Exception as error:  # written by somebody else, who may have put anything there
                outcome.failed[row.position] = InvalidMessage(f"the row is no message: {error}")
        if not good:
            return
        for row, failure in zip(good, self._send(topic, messages), strict=True):
            if failure is None:
                outcome.confirmed.append(row.position)
            elif isinstance(failure, BrokerUnavailable | Closed):
                outcome.broker = failure
            elif failure.retryable or isinstance(failure, _OF_THE_TOPIC):
                outcome.held[topic] = failure
            else:
                outcome.failed[row.position] = failure

    def _send(self, topic: str, messages: list[Message]) -> list[MessagingError | None]:
        """The error of each message, None where it is stored."""
        if self._producer is None:
            self._producer = self._broker.producer(timeout=self._timeout)
        try:
            self._producer.publish_many(topic, messages)
        except BatchPublishFailed as error:
            return [error.failures.get(index) for index in range(len(messages))]
        except InvalidMessage:  # one of them, and nothing was sent: which one?
            return self._send_singly(self._producer, topic, messages)
        except MessagingError as error:
            return [error] * len(messages)
        return [None] * len(messages)

    def _send_singly(self, producer: Producer, topic: str, messages: list[Message]) -> list[MessagingError | None]:
        sent: list[Future[str] | MessagingError] = []
        for message in messages:
            try:
                sent.append(producer.publish_nowait(topic, message))
            except MessagingError as error:
                sent.append(error)
        return [_error_of(one) if isinstance(one, Future) else one for one in sent]


def _error_of(future: Future[str]) -> MessagingError | None:
    error = future.exception()
    if error is None or isinstance(error, MessagingError):
        return error
    raise error


def _in_parts(rows: list[Row[Any]]) -> list[list[Row[Any]]]:
    """Each key once in a part: what fails is then known before the next of its key is sent."""
    parts: list[list[Row[Any]]] = []
    seen: Counter[str | None] = Counter()
    for row in rows:
        number = seen[row.aggregateid]
        seen[row.aggregateid] += 1
        if number == len(parts):
            parts.append([])
        parts[number].append(row)
    return parts
