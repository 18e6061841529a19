"""Real brokers in containers: what the contract suite starts, disturbs and stops.

with catalogue.find("rabbitmq:4").container() as broker:
    messaging.connect(broker.url)
"""

from messaging_contract.containers.base import BrokerContainer
from messaging_contract.containers.catalogue import Entry, UnknownContainer, find, specs
from messaging_contract.containers.errors import BrokerNotReady, ContainersUnavailable

__all__ = [
    "BrokerContainer",
    "BrokerNotReady",
    "ContainersUnavailable",
    "Entry",
    "UnknownContainer",
    "find",
    "specs",
]
