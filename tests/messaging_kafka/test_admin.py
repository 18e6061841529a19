"""The admin client: what it does when the cluster does not answer. Needs no broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from messaging.errors import BrokerUnavailable
from messaging_contract.faults import HOST, TcpProxy
from messaging_kafka import KafkaOptions
from messaging_kafka.admin import Admin


def test_after_a_request_that_nobody_answered_it_asks_with_another_client() -> None:
    """One that saw the broker restart may never find the controller again; a soak did, and could subscribe no more."""
    with TcpProxy() as silent:
        admin = Admin(KafkaOptions(hosts=((HOST, silent.port),)), timeout=1.0)
        first = admin.client
        with pytest.raises(BrokerUnavailable):
            admin.partitions(["orders"])
        assert admin.client is not first


def test_a_cluster_that_names_no_broker_yet_is_unavailable() -> None:
    admin: Any = Admin(KafkaOptions())
    admin.client = SimpleNamespace(list_topics=lambda *_arguments, **_options: SimpleNamespace(brokers={}))
    with pytest.raises(BrokerUnavailable, match="names none"):
        admin.a_broker()
