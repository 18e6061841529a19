"""One producer/consumer interface over Kafka, RabbitMQ, SQS and an in-memory broker."""

from messaging.broker import Broker, connect
from messaging.capabilities import Capabilities, Capability, Support
from messaging.codec import Codec, register_codec
from messaging.consumer import Consumer
from messaging.dead_letter_queue import DeadLetter, DeadLetterQueue
from messaging.delivery import Delivery
from messaging.errors import (
    AuthenticationFailed,
    BatchPublishFailed,
    BrokerUnavailable,
    Closed,
    ConfigurationError,
    DecodeError,
    DestinationNotFound,
    EncodeError,
    InvalidMessage,
    LeaseLost,
    MessageTooLarge,
    MessagingError,
    ProducerFull,
    ProducerHeld,
    PublishFailed,
    PublishTimeout,
    SettleFailed,
    TopologyError,
    TransactionAborted,
    Unavailable,
    Unroutable,
    UnsupportedCapability,
)
from messaging.lag_throttle import LagThrottle
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.plan import Difference, Finding, Part
from messaging.pressure_gate import Pressure, PressureGate
from messaging.producer import Producer
from messaging.retry import NO_RETRY, RetryPolicy
from messaging.topology import Queue, Source, Subscription, Topic, Topology
from messaging.transaction import Transaction
from messaging.waits import Wait
from messaging.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "NO_RETRY",
    "AuthenticationFailed",
    "BatchPublishFailed",
    "Broker",
    "BrokerUnavailable",
    "Capabilities",
    "Capability",
    "Closed",
    "Codec",
    "ConfigurationError",
    "Consumer",
    "ConsumerOptions",
    "DeadLetter",
    "DeadLetterQueue",
    "DecodeError",
    "Delivery",
    "DestinationNotFound",
    "Difference",
    "EncodeError",
    "Finding",
    "InvalidMessage",
    "LagThrottle",
    "LeaseLost",
    "Message",
    "MessageTooLarge",
    "MessagingError",
    "Part",
    "Pressure",
    "PressureGate",
    "Producer",
    "ProducerFull",
    "ProducerHeld",
    "ProducerOptions",
    "PublishFailed",
    "PublishTimeout",
    "Queue",
    "RetryPolicy",
    "SettleFailed",
    "Source",
    "Subscription",
    "Support",
    "Topic",
    "Topology",
    "TopologyError",
    "Transaction",
    "TransactionAborted",
    "Unavailable",
    "Unroutable",
    "UnsupportedCapability",
    "Wait",
    "Worker",
    "connect",
    "register_codec",
]
