from __future__ import annotations

from typing import Any

import pytest

import messaging
from messaging.errors import ConfigurationError
from messaging_kafka import KafkaOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"hosts": ()},
        {"connect_timeout": 0},
        {"group_protocol": "eager"},
        {"queues": "shared"},
        {"security_protocol": "TLS"},
        {"sasl_mechanism": "GSSAPI", "username": "u", "password": "p"},
        {"username": "u"},
        {"password": "p"},
        {"username": "u", "password": "p", "security_protocol": "PLAINTEXT"},
        {"username": "u", "password": "p", "security_protocol": "SSL"},
        {"security_protocol": "SASL_SSL"},
        {"config": "linger.ms=5"},
        {"config": {"enable.auto.commit": "true"}},
        {"config": {"acks": "1"}},
        {"config": {"group.id": "mine"}},
    ],
    ids=str,
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="kafka"):
        KafkaOptions(**wrong)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("kafka://127.0.0.1:1?conect_timeout=1", "connect_timeout"),
        ("kafka://127.0.0.1:1?connect_timeout=soon", "connect_timeout"),
        ("kafka://127.0.0.1:1?queues=shared", "queues"),
    ],
)
def test_wrong_options_of_a_url(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        messaging.connect(url)


def test_a_property_that_the_client_does_not_know() -> None:
    with pytest.raises(ConfigurationError, match=r"no\.such\.property"):
        messaging.connect("kafka://127.0.0.1:1", config={"no.such.property": "1"})


def test_bootstrap_servers() -> None:
    options = KafkaOptions(hosts=(("one", None), ("two", 1234), ("::1", None)))
    assert options.bootstrap == "one:9092,two:1234,[::1]:9092"


def test_a_user_makes_it_sasl_and_config_comes_last() -> None:
    plain = KafkaOptions().client(group_id="g")
    assert (plain["security.protocol"], plain["group.id"]) == ("PLAINTEXT", "g")
    secret = KafkaOptions(username="u", password="p", config={"client.rack": "a", "reconnect.backoff.max.ms": "5"})
    client = secret.client()
    assert (client["security.protocol"], client["sasl.mechanism"]) == ("SASL_PLAINTEXT", "PLAIN")
    assert (client["client.rack"], client["reconnect.backoff.max.ms"]) == ("a", "5")
    assert "password" not in repr(secret)
