"""A message handed to a consumer, to be settled exactly once: ack, nack or reject."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from messaging.codec import decode
from messaging.message import Message
from messaging.rejection import Rejection
from messaging.topology import Source

UNSET: Any = object()
"""The `_value` of a delivery that nobody has decoded yet."""


class Settler(ABC):
    """Who carries out settlements. Every method may be called from any thread; only `extend` waits for the broker.

    Settling a delivery that is already settled, or whose connection or partition is gone, does nothing: the broker
    delivers the message again. After close, all of them raise Closed.
    """

    @abstractmethod
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with: never delivered again to this source. A failure surfaces on the next receive or close."""

    @abstractmethod
    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        """Deliver again to this source only, with attempt + 1, not before `delay` seconds (0: at once)."""

    @abstractmethod
    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        """To the dead-letter queue of the source, confirmed there before it leaves the source."""

    @abstractmethod
    def extend(self, delivery: Delivery, seconds: float) -> None:
        """Keep the lease for `seconds` from now. Waits for the broker, since only it knows whether it is still there.

        Raises UnsupportedCapability without leases, LeaseLost when gone, BrokerUnavailable.
        """


class Delivery:
    """One delivery of one message.

    Settling may happen from any thread; settling a second time is harmless and does nothing. Adapters subclass it
    to decode lazily: `_load` turns the client's object into a Message at first use. Where the fields are kept is the
    subclass's matter; `PlainDelivery` has a slot for each.
    """

    __slots__ = tuple[str, ...]()  # not a literal, for which type checkers would let nothing be assigned

    settler: Settler
    source: Source
    native: Any
    """The client library's own object: pika's properties, a confluent-kafka Message, boto3's dict."""
    attempt: int
    """1 on the first delivery; at least one more each time the message is delivered again.

    On ordered sources and Kafka subscriptions it may begin at 1 again with another consumer."""
    as_type: Any
    _message: Message | None
    _value: Any
    _settled: bool

    def _load(self) -> Message:
        """Builds the message from `native`. Called once at most. Must not raise: foreign messages arrive as is."""
        raise NotImplementedError

    @property
    def message(self) -> Message:
        if self._message is None:
            self._message = self._load()
        return self._message

    @property
    def body(self) -> bytes:
        return self.message.body

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def key(self) -> str | None:
        return self.message.key

    @property
    def type(self) -> str:
        return self.message.type

    @property
    def headers(self) -> Mapping[str, str]:
        return self.message.headers

    @property
    def content_type(self) -> str | None:
        return self.message.content_type

    @property
    def timestamp(self) -> float:
        """When it was published: seconds since the epoch, UTC."""
        return self.message.timestamp

    @property
    def expires_at(self) -> float | None:
        """When its time to live ends: seconds since the epoch, UTC."""
        return self.message.expires_at

    @property
    def correlation_id(self) -> str | None:
        return self.message.correlation_id

    @property
    def reply_to(self) -> str | None:
        return self.message.reply_to

    @property
    def value(self) -> Any:
        """The decoded body, as the consumer's `as_type` when it has one. Raises DecodeError; decoded once."""
        if self._value is UNSET:
            self._value = decode(self.body, self.content_type, self.as_type)
        return self._value

    @property
    def settled(self) -> bool:
        """Whether ack, nack or reject was called."""
        return self._settled

    def ack(self) -> None:
        """The message is done with and never comes back to this source. Raises Closed after the consumer closed."""
        if not self._settled:
            self.settler.ack((self,))
            self._settled = True

    def nack(self, delay: float = 0.0) -> None:
        """Deliver it again to this source only, not before `delay` seconds. Raises Closed, ValueError."""
        if not 0 <= delay < float("inf"):
            raise ValueError(f"delay must be seconds from 0 on, not {delay!r}")
        if not self._settled:
            self.settler.nack((self,), delay)
            self._settled = True

    def reject(
        self,
        reason: str = "rejected",
        *,
        error: BaseException | str = "",
        first_failure: float | None = None,
    ) -> None:
        """Move it to the dead-letter queue, with these in its headers (`messaging.dead_letter`). Raises Closed.

        error: the exception that is the reason, or the name of its type. first_failure: seconds since the epoch.
        """
        if not self._settled:
            name = error if isinstance(error, str) else type(error).__name__
            self.settler.reject((self,), Rejection(reason, name, first_failure))
            self._settled = True

    def extend(self, seconds: float) -> None:
        """Keep the message for `seconds` from now. Raises UnsupportedCapability, LeaseLost, Closed, ValueError."""
        if not 0 < seconds < float("inf"):
            raise ValueError(f"seconds must be positive, not {seconds!r}")
        self.settler.extend(self, seconds)

    def again(self) -> Delivery:
        """A fresh, unsettled delivery of the same message with attempt + 1: what a nack inside the consumer makes."""
        again = copy(self)
        again.attempt += 1
        again._settled = False
        # Loaded afresh: what the failed attempt did to headers or value is not seen by the next one.
        again._message = None
        again._value = UNSET
        return again

    def __repr__(self) -> str:
        return f"<Delivery {self.id} of {self.source}, attempt {self.attempt}>"


class PlainDelivery(Delivery):
    """A delivery that keeps its fields in slots."""

    __slots__ = ("_message", "_settled", "_value", "as_type", "attempt", "native", "settler", "source")

    def __init__(self, settler: Settler, source: Source, native: Any, attempt: int = 1) -> None:
        self.settler = settler
        self.source = source
        self.native = native
        self.attempt = attempt
        self.as_type = None
        self._message = None
        self._value = UNSET
        self._settled = False
