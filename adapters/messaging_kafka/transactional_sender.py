"""A producer with a transactional id: what it sends is seen when its transaction is committed, or never."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from threading import Event
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from messaging.driver import Done, Outgoing
from messaging.errors import BrokerUnavailable, TransactionAborted
from messaging.message import Message, PlainValue

from .admin import Admin
from .errors import translate
from .options import KafkaOptions
from .records import Headers
from .sender import KafkaSender

log = logging.getLogger(__name__)

_ABORT = 1.0
"""Seconds for an abort at least."""
_AGAIN = 0.05
"""Seconds between two attempts of what the client calls retriable."""


class _State(Enum):
    IDLE = auto()
    OPEN = auto()
    UNKNOWN = auto()
    """The client must not be used again. Another one with the same id ends what it left open, one way or the other."""


class TransactionalSender(KafkaSender):
    """One transaction at a time (KIP-98), fenced by the consumer group's generation (KIP-447).

    `begin`, `commit`, `abort` and `send` belong to the consumer's thread, `copy` too; the reports are the poll
    thread's. A transaction is begun at the broker by the first message or by the commit.
    """

    def __init__(
        self, options: KafkaOptions, admin: Admin, timeout: float, on_close: Callable[[Any], None], id: str
    ) -> None:
        longest = round(options.transaction_timeout * 1000)
        super().__init__(
            options,
            admin,
            min(timeout, options.transaction_timeout),
            on_close,
            transactional_id=id,
            transaction_timeout_ms=longest,
            # Else, after all connections were lost at once, `send_offsets_to_transaction` waits for ever for the
            # coordinator it knew before (librdkafka 2.16). A client that cannot go on is replaced anyway.
            metadata_recovery_strategy="none",
        )
        self._state = _State.UNKNOWN
        self._fresh = True

    def ready(self, timeout: float) -> bool:
        """Makes ready for a transaction. Returns whether one was left with an unknown outcome, which is final now.

        Raises BrokerUnavailable, AuthenticationFailed.
        """
        if self._watch.is_lost:
            self._fresh, self._state = False, _State.UNKNOWN
        if self._state is _State.OPEN:
            self.abort(timeout)
        if self._state is not _State.UNKNOWN:
            return False
        was_fresh = self._fresh
        producer = self._producer if was_fresh else self._new_client()
        try:
            self._insist(producer.init_transactions, time.monotonic() + timeout)
        except KafkaException as error:
            if was_fresh:
                self._fresh = False  # it may have a call half done
            raise translate(error, "begin of a transaction", BrokerUnavailable) from error
        if not was_fresh:
            old, self._producer = self._producer, producer
            self._guarded(partial(old.purge, in_queue=True, in_flight=True, blocking=False))
            self._replaced = old
        self._fresh = False
        self._state = _State.IDLE
        return not was_fresh

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        self._begin()
        super().send(messages, outgoing, done)

    def send_values(self, values: Sequence[PlainValue], timestamp: float, outgoing: Outgoing, done: Done) -> None:
        self._begin()
        super().send_values(values, timestamp, outgoing, done)

    def copy(
        self, record: Any, headers: Headers, topic: str, partition: int | None, done: Done, index: int = 0
    ) -> None:
        self._begin()
        super().copy(record, headers, topic, partition, done, index)

    def _begin(self) -> None:
        if self._state is _State.IDLE:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                self._state = _State.UNKNOWN
                raise TransactionAborted(f"the transaction could not be begun: {_words(error)}") from error
            self._state = _State.OPEN

    @property
    def is_open(self) -> bool:
        return self._state is _State.OPEN

    def commit(self, offsets: list[TopicPartition], group: Any, timeout: float) -> None:
        """Commits `offsets` for the consumer group with what was sent.

        Raises TransactionAborted: it did not happen. Raises BrokerUnavailable: it is not known whether it did, also
        when the client calls for an abort: it does so too when a commit was sent and no answer came. Only the
        coordinator's consent to the abort tells.
        """
        self._begin()
        deadline = time.monotonic() + timeout
        try:
            if offsets:
                self._insist(partial(self._producer.send_offsets_to_transaction, offsets, group), deadline)
        except KafkaException as error:
            raise TransactionAborted(f"nothing of the transaction happened: {_words(error)}") from error
        try:
            self._insist(self._producer.commit_transaction, deadline)
        except KafkaException as error:
            if _problem(error).txn_requires_abort():
                self.abort(max(deadline - time.monotonic(), _ABORT))
                if self._state is _State.IDLE:
                    raise TransactionAborted(f"nothing of the transaction happened: {_words(error)}") from error
            self._state = _State.UNKNOWN
            raise BrokerUnavailable(f"it is not known yet whether a transaction happened: {_words(error)}") from error
        self._state = _State.IDLE

    def abort(self, timeout: float) -> None:
        """Takes back what was sent. Raises nothing: what cannot be reached is ended by `ready`, or by its timeout."""
        if self._state is not _State.OPEN:
            return
        try:
            self._insist(self._producer.abort_transaction, time.monotonic() + timeout)
        except KafkaException as error:
            log.info("a transaction could not be aborted, so its producer is replaced: %s", _words(error))
            self._state = _State.UNKNOWN
        else:
            self._state = _State.IDLE

    def close(self, timeout: float) -> None:
        self.abort(timeout)
        super().close(timeout)

    def _insist(self, call: Callable[[float], Any], deadline: float) -> None:
        while True:
            try:
                call(max(deadline - time.monotonic(), 0.1))
                return
            except KafkaException as error:
                if not _problem(error).retriable() or time.monotonic() >= deadline:
                    raise
                Event().wait(_AGAIN)

    def _look_for_stuck(self) -> None:
        """A message that times out fails its transaction, and with that goes the client when it does not recover."""
        self._timed_out.clear()


def _problem(error: KafkaException) -> KafkaError:
    problem = error.args[0]
    assert isinstance(problem, KafkaError)
    return problem


def _words(error: KafkaException) -> str:
    return _problem(error).str()
