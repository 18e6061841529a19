"""Every error this library raises, in one small tree.

Each message says what failed, on which destination, and what to do about it. Catch `MessagingError` for all of
them. `retryable` tells whether the same call may succeed later without anyone changing anything.
"""

from __future__ import annotations

from collections.abc import Mapping


class MessagingError(Exception):
    """Root of the tree."""

    retryable = False


class ConfigurationError(MessagingError):
    """A URL, profile or option is wrong; the text names the nearest valid one. Raised before anything is sent."""


class UnsupportedCapability(MessagingError):
    """This broker cannot do what was asked for. Raised at declaration or call time, before anything is sent."""


class Unavailable(MessagingError):
    """Something that is needed, a broker or a database, does not answer. A `RetryPolicy` gives up no message for it."""

    retryable = True


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached, or the connection was lost and not regained within the deadline."""


class AuthenticationFailed(MessagingError):
    """The broker refused the credentials, or they do not allow the operation."""


class TopologyError(MessagingError):
    """What was declared contradicts itself, or what the broker holds."""


class DestinationNotFound(TopologyError):
    """The queue, topic or subscription does not exist and may not be created here."""


class InvalidMessage(MessagingError):
    """The message cannot be carried as it is (key, header, id, body). Nothing was sent."""


class MessageTooLarge(InvalidMessage):
    """The message is larger than the broker takes. Nothing was sent."""


class EncodeError(InvalidMessage):
    """The value cannot be encoded for its content type. Nothing was sent."""


class DecodeError(MessagingError):
    """The body is not what the codec or the requested type expects. `delivery.body` holds it unchanged."""


class PublishFailed(MessagingError):
    """The broker refused the message; it was not stored."""


class Unroutable(PublishFailed):
    """`mandatory=True` was asked for and no subscription took the message."""


class PublishTimeout(PublishFailed):
    """No confirmation within the deadline: the outcome is unknown, the message may or may not have been stored."""

    retryable = True


class ProducerFull(PublishFailed):
    """`max_in_flight` messages await confirmation and `on_full="raise"`. Nothing was sent."""

    retryable = True


class ProducerHeld(PublishFailed):
    """A `LagThrottle` held the publish to its deadline. Nothing was sent."""

    retryable = True


class BatchPublishFailed(PublishFailed):
    """Some messages of a `publish_many` failed; the others are confirmed.

    `failures` maps the index of each failed message, in the order given, to its error.
    """

    def __init__(self, text: str, failures: Mapping[int, MessagingError]) -> None:
        super().__init__(text)
        self.failures = dict(failures)


class SettleFailed(MessagingError):
    """An ack, nack or reject could not be carried out; the message will be delivered again."""


class LeaseLost(SettleFailed):
    """The lease ran out or was taken over before it could be extended; the message will be delivered again."""


class TransactionAborted(MessagingError):
    """Nothing of a transaction happened: what it published is never seen, and what it received is delivered again."""

    retryable = True


class Closed(MessagingError):
    """The broker, producer or consumer was closed, or belongs to the process that this one was forked from."""
