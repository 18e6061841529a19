"""Temporary credentials that expire: everybody is told, nobody dies, and all goes on once there are new ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

import messaging
from messaging import Queue
from messaging.broker import Broker
from messaging.consumer import Consumer
from messaging.errors import AuthenticationFailed, MessagingError, SettleFailed
from messaging_contract.gate import Gate

from .test_messages import take

Connect = Callable[..., Broker]

# The gate gives the answers that this is about, so the endpoint behind it does not matter.
pytestmark = pytest.mark.only("sqs:elasticmq", "sqs:moto-process")


def hear(consumer: Consumer, kind: type[MessagingError]) -> MessagingError:
    """The next error of that kind; those of the receiving side may come before it, and again."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            consumer.receive(1, 0.5)
        except (AuthenticationFailed, SettleFailed) as error:
            if isinstance(error, kind):
                return error
    raise AssertionError(f"no {kind.__name__}")


def test_expired_credentials_are_told_and_survived(connect: Connect, gated: str, name: str, gate: Gate) -> None:
    connect(Queue(name))
    broker = connect(Queue(name), target=gated)
    broker.publish(name, b"before")
    with broker.subscribe(name, lease=5) as consumer:
        (held,) = take(consumer, 1)
        gate.expired.set()
        with pytest.raises(AuthenticationFailed, match="session_token"):
            broker.publish(name, b"meanwhile")
        assert "session_token" in str(hear(consumer, AuthenticationFailed))
        held.ack()
        assert "delivered again" in str(hear(consumer, SettleFailed))
        gate.expired.clear()
        broker.publish(name, b"after")
        bodies: list[bytes] = []
        deadline = time.monotonic() + 15
        while len(bodies) < 2 and time.monotonic() < deadline:
            with suppress(AuthenticationFailed):  # told while the consumer did not listen
                bodies += [delivery.body for delivery in consumer.receive(2, 0.5)]
        assert sorted(bodies) == [b"after", b"before"]


def test_refused_credentials_are_told_at_connect(gated: str, gate: Gate) -> None:
    gate.expired.set()
    with pytest.raises(AuthenticationFailed, match=r"connect to SQS .*check access_key") as raised:
        messaging.connect(gated + "&session_token=hidden")
    assert "hidden" not in str(raised.value)
