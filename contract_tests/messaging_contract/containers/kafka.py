"""Apache Kafka, as in the official `apache/kafka` image (KRaft, one node)."""

from __future__ import annotations

from typing import ClassVar

from messaging_contract.containers.base import BrokerContainer
from messaging_contract.containers.ports import HOST


class KafkaContainer(BrokerContainer):
    """One Kafka node that is broker and controller, with everything replicated once."""

    port_inside: ClassVar[int] = 9092

    @property
    def url(self) -> str:
        return f"kafka://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """As soon as one KAFKA_ variable is set the image ignores its defaults, so this is the whole set."""
        return {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            # The broker talks to itself through BROKER. The port that PLAINTEXT advertises exists on the host only,
            # so with it alone all works but transactions, whose coordinator is then out of reach.
            "KAFKA_LISTENERS": "PLAINTEXT://0.0.0.0:9092,BROKER://localhost:9094,CONTROLLER://localhost:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{self.port},BROKER://localhost:9094",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
            # The defaults of 50 partitions each cost a second at the first use and at every start.
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_NUM_PARTITIONS": "4",
            # A group starts at once instead of waiting 3 s for members that never come.
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_HEAP_OPTS": "-Xmx512m -Xms256m",
            # It lives for minutes: what the second compiler makes of it is never paid back. Half the processor time.
            "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }

    def answers(self) -> bool:
        """Whether the broker takes part in its cluster and every partition has a leader."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        # log_level 0: a refused connection is what we poll for, and librdkafka would print each.
        admin = AdminClient({"bootstrap.servers": f"{HOST}:{self.port}", "log_level": 0})
        try:
            cluster = admin.list_topics(timeout=2)
        except KafkaException:
            return False
        partitions = (p for topic in cluster.topics.values() for p in topic.partitions.values())
        return bool(cluster.brokers) and all(partition.leader >= 0 for partition in partitions)
