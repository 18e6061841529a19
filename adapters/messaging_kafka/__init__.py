"""The Kafka adapter: topics and consumer groups, queues on share groups where the cluster has them."""

from messaging_kafka.driver import KafkaDriver
from messaging_kafka.options import KafkaOptions

__all__ = ["KafkaDriver", "KafkaOptions"]
