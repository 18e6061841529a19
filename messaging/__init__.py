"""One producer/consumer interface over Kafka, RabbitMQ, SQS and an in-memory broker."""

from messaging.broker import Broker, connect
from messaging.capabilities import Capabilities, Capability, Support
from messaging.codec import Codec, register_codec
from messaging.consumer import Consumer
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
    PublishFailed,
    PublishTimeout,
    SettleFailed,
    TopologyError,
    Unroutable,
    UnsupportedCapability,
)
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.producer import Producer
from messaging.retry import NO_RETRY, RetryPolicy
from messaging.topology import Queue, Source, Subscription, Topic, Topology
from messaging.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "NO_RETRY",
    "RetryPolicy",
    "Worker",
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
    "DecodeError",
    "Delivery",
    "DestinationNotFound",
    "EncodeError",
    "InvalidMessage",
    "LeaseLost",
    "Message",
    "MessageTooLarge",
    "MessagingError",
    "Producer",
    "ProducerFull",
    "ProducerOptions",
    "PublishFailed",
    "PublishTimeout",
    "Queue",
    "SettleFailed",
    "Source",
    "Subscription",
    "Support",
    "Topic",
    "Topology",
    "TopologyError",
    "Unroutable",
    "UnsupportedCapability",
    "connect",
    "register_codec",
]
