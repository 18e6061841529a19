"""Which brokers the suite can start, by the names that MESSAGING_CONTAINERS and `--containers` take."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from messaging_contract.containers.base import BrokerContainer
from messaging_contract.containers.kafka import KafkaContainer
from messaging_contract.containers.rabbitmq import RabbitMQContainer
from messaging_contract.containers.sqs import ElasticMQContainer, MinistackContainer, MotoContainer


class UnknownContainer(ValueError):
    """No broker has this name. The text lists the valid ones."""


@dataclass(frozen=True)
class Entry:
    """A broker the suite can start. `image` is the official one; the environment variable `variable` overrides it.

    parts: how many containers of it the suite divides its clauses over when it may run many processes.
    """

    name: str
    container_class: Callable[[str, str, str], BrokerContainer]
    image: str
    variable: str
    parts: int = 1

    def container(self) -> BrokerContainer:
        """Returns a container, not started, of the image that applies now."""
        return self.container_class(self.name, os.environ.get(self.variable) or self.image, self.variable)


_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("rabbitmq:3.10", RabbitMQContainer, "rabbitmq:3.10", "MESSAGING_IMAGE_RABBITMQ_3_10"),
        Entry("rabbitmq:4", RabbitMQContainer, "rabbitmq:4", "MESSAGING_IMAGE_RABBITMQ_4"),
        Entry("kafka:4.1", KafkaContainer, "apache/kafka:4.1.0", "MESSAGING_IMAGE_KAFKA_4_1", 2),
        Entry("kafka:4.2", KafkaContainer, "apache/kafka:4.2.0", "MESSAGING_IMAGE_KAFKA_4_2", 3),
        Entry("sqs:elasticmq", ElasticMQContainer, "softwaremill/elasticmq-native:1.6.11", "MESSAGING_IMAGE_ELASTICMQ"),
        Entry("sqs:ministack", MinistackContainer, "ministackorg/ministack:1.5.33", "MESSAGING_IMAGE_MINISTACK", 2),
        Entry("sqs:moto", MotoContainer, "motoserver/moto:5.2.5", "MESSAGING_IMAGE_MOTO", 3),
    )
}

# ministack is the one SQS emulator that has both queues and fan-out and is right about most.
_SHORT = {"rabbitmq": "rabbitmq:4", "kafka": "kafka:4.2", "sqs": "sqs:ministack"}


def specs() -> list[str]:
    """Returns every name that `find` takes."""
    return [*_SHORT, *_ENTRIES]


def find(spec: str) -> Entry:
    """Returns the broker called `spec`: `kafka`, `rabbitmq:3.10`, `sqs:moto` ... Raises `UnknownContainer`."""
    try:
        return _ENTRIES[_SHORT.get(spec, spec)]
    except KeyError:
        near = get_close_matches(spec, specs(), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownContainer(f"No broker is called {spec!r}.{hint} There are: {', '.join(specs())}.") from None
