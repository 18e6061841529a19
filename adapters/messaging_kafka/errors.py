"""The client library's errors, as ours."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    ConfigurationError,
    DestinationNotFound,
    MessageTooLarge,
    MessagingError,
    PublishFailed,
    PublishTimeout,
    TopologyError,
    UnsupportedCapability,
)

_KINDS: dict[type[MessagingError], str] = {
    BrokerUnavailable: """_ALL_BROKERS_DOWN _TRANSPORT _RESOLVE _TIMED_OUT _TIMED_OUT_QUEUE _WAIT_COORD _DESTROY
        REQUEST_TIMED_OUT BROKER_NOT_AVAILABLE NETWORK_EXCEPTION COORDINATOR_NOT_AVAILABLE
        COORDINATOR_LOAD_IN_PROGRESS NOT_COORDINATOR LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION
        FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH NOT_CONTROLLER _NOENT""",
    AuthenticationFailed: """_AUTHENTICATION SASL_AUTHENTICATION_FAILED TOPIC_AUTHORIZATION_FAILED
        GROUP_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED UNSUPPORTED_SASL_MECHANISM""",
    DestinationNotFound: "UNKNOWN_TOPIC_OR_PART _UNKNOWN_TOPIC _UNKNOWN_PARTITION UNKNOWN_TOPIC_ID",
    MessageTooLarge: "MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE",
    TopologyError: "INVALID_CONFIG INVALID_PARTITIONS INVALID_REPLICATION_FACTOR TOPIC_EXCEPTION POLICY_VIOLATION",
    UnsupportedCapability: "UNSUPPORTED_VERSION _UNSUPPORTED_FEATURE",
    ConfigurationError: "_INVALID_ARG",
    PublishTimeout: "_MSG_TIMED_OUT _PURGE_QUEUE _PURGE_INFLIGHT",
}
# _NOENT: the client found no leader of a partition.
_BY_CODE: dict[int, type[MessagingError]] = {
    getattr(KafkaError, name): kind
    for kind, names in _KINDS.items()
    for name in names.split()
    if hasattr(KafkaError, name)
}


def translate(
    error: KafkaError | KafkaException, what: str, default: type[MessagingError] = MessagingError
) -> MessagingError:
    """Returns our error for the client library's, with it as `__cause__`. `what` says what failed, on what."""
    cause = error if isinstance(error, KafkaException) else KafkaException(error)
    code = cause.args[0]
    kind = _BY_CODE.get(code.code(), default) if isinstance(code, KafkaError) else default
    text = code.str() if isinstance(code, KafkaError) else str(cause)
    translated = kind(f"{what}: {text}")
    translated.__cause__ = cause
    return translated


def publish_error(error: KafkaError, topic: str) -> MessagingError:
    """What became of one message that was not confirmed."""
    kind = _BY_CODE.get(error.code(), PublishFailed)
    if kind is BrokerUnavailable:
        kind = PublishTimeout  # the request may have arrived: the outcome is unknown
    text = error.str()
    if error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
        text = "not confirmed when its producer was closed or replaced, or its transaction taken back"
    translated = kind(f"publish to {topic!r}: {text}")
    translated.__cause__ = KafkaException(error)
    return translated
