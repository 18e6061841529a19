"""What is written down twice, because it is needed in files of different kinds, says the same."""

from __future__ import annotations

import re
from pathlib import Path

from messaging_contract.containers.catalogue import find, specs
from messaging_contract.containers.kafka import KafkaContainer
from messaging_contract.containers.sqs import ElasticMQContainer

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "compose.yaml").read_text("utf-8")

FASTER = {
    "JAVA_TOOL_OPTIONS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_NUM_PARTITIONS",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS",
}
"""What only the suite's Kafka sets, to start sooner."""


def test_the_kafka_of_the_compose_file_is_that_of_the_suite() -> None:
    container = KafkaContainer("kafka:4.2", "image")
    container.port = container.port_inside
    suite = container.environment()
    lines = re.findall(r"^ +(KAFKA_\w+): (.*)$", COMPOSE, re.MULTILINE)
    compose = {name: re.sub(r"\$\{MESSAGING_PORT_KAFKA:-(\d+)\}", r"\1", value.strip('"')) for name, value in lines}
    assert compose == {name: value for name, value in suite.items() if name not in FASTER}


def test_elasticmq_is_configured_the_same_in_its_image_and_in_the_suite() -> None:
    baked_in = (ROOT / ".ci/images/elasticmq/elasticmq.conf").read_bytes()
    assert list(ElasticMQContainer("sqs:elasticmq", "image").files().values()) == [baked_in]


def test_the_images_of_the_compose_file_are_those_of_the_suite() -> None:
    images = {find(spec).variable: find(spec).image for spec in specs()}
    named = dict(re.findall(r"\$\{(MESSAGING_IMAGE_\w+):-([^}]+)\}", COMPOSE))
    assert named
    assert named == {variable: images[variable] for variable in named}
