"""Relays that are killed, on real brokers: nothing is lost, what comes twice has the same id, each key is in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

import messaging
from messaging import Broker, Message, Topic
from messaging_contract.harness import Harness
from messaging_sql import Outbox, Relay, Tables

from .victim import LEASE, STEPS

VICTIM = Path(__file__).with_name("victim.py")
KEYS, EACH = 10, 20
TIMES = range(int(os.environ.get("MESSAGING_TEST_TIMES", "1")))
"""How often each of these runs."""


def start(engine: Engine, tables: Tables, url: str, topic: str, step: str) -> subprocess.Popen[str]:
    database = engine.url.render_as_string(hide_password=False)
    return subprocess.Popen(
        [sys.executable, str(VICTIM), database, tables.schema or "", url, topic, step],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(relay: subprocess.Popen[str]) -> None:
    assert relay.stdin is not None
    relay.stdin.write("go\n")
    relay.stdin.flush()


def add_all(engine: Engine, tables: Tables, topic: str) -> dict[str, tuple[str, int]]:
    """Key and number of each message, by id. Several transactions, each with a message of every key."""
    added: dict[str, tuple[str, int]] = {}
    for number in range(EACH):
        with engine.begin() as connection:
            messages = [Message(str(number).encode(), key=f"key-{key}") for key in range(KEYS)]
            ids = Outbox(tables=tables).add_many(connection, topic, messages)
        added |= {one: (f"key-{key}", number) for key, one in enumerate(ids)}
    return added


def first_occurrences(broker: Broker, topic: str, expected: int) -> tuple[dict[str, tuple[str, int]], int]:
    """What arrived, by id, in the order in which it came first; and how many came again."""
    found: dict[str, tuple[str, int]] = {}
    again = 0
    with broker.subscribe(topic, "readers") as consumer:
        quiet = 0
        while quiet < (2 if len(found) >= expected else 40):
            deliveries = consumer.receive(500, timeout=0.5)
            quiet = 0 if deliveries else quiet + 1
            for delivery in deliveries:
                again += delivery.id in found
                what = (delivery.key or "", int(delivery.body))
                assert found.setdefault(delivery.id, what) == what, "one id, two messages"
                delivery.ack()
    return found, again


def check_crash(harness: Harness, engine: Engine, tables: Tables, step: str, eventually: Callable[..., None]) -> None:
    assert harness.url is not None
    name = f"outbox-{uuid.uuid4().hex[:12]}"
    topic = Topic(name, "readers", ordered=True)
    with messaging.connect(harness.url, topology=topic) as broker:
        victims = [start(engine, tables, harness.url, name, step) for _ in range(2)]
        try:
            for victim in victims:
                assert victim.stdout is not None
                assert victim.stdout.readline() == "ready\n", victim.communicate()[1]
            added = add_all(engine, tables, name)
            for victim in victims:
                go(victim)
            # One dies with rows in hand, the other takes them over and dies too; then two that live share the rest.
            for victim in victims:
                assert victim.wait(60) == -signal.SIGKILL, victim.communicate()[1]
            relays = [Relay(engine, broker, tables=tables, batch=20, lease=LEASE, poll=0.1) for _ in range(2)]
            with relays[0], relays[1]:
                eventually(lambda: waiting(engine, tables) == 0, 60)
        finally:
            for victim in victims:
                victim.kill()
                victim.communicate()
        found, again = first_occurrences(broker, name, len(added))
        broker.delete(topic)
    assert found == added, "nothing is lost, and nothing is made up"
    for key in range(KEYS):
        assert [number for k, number in found.values() if k == f"key-{key}"] == list(range(EACH))
    if step == "published":
        assert again >= 2, "what was confirmed and not marked comes again, with the same id"


def waiting(engine: Engine, tables: Tables) -> int:
    with engine.connect() as connection:
        return Outbox(tables=tables).backlog(connection).waiting


@pytest.mark.only("rabbitmq:4")
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("step", STEPS)
def test_relays_killed_on_rabbitmq(
    rabbitmq: Harness, engine: Engine, tables: Tables, step: str, time: int, eventually: Callable[..., None]
) -> None:
    check_crash(rabbitmq, engine, tables, step, eventually)


@pytest.mark.only("rabbitmq:4")
@pytest.mark.parametrize("time", TIMES)
def test_sigterm_while_it_publishes_leaves_nothing_in_between(
    rabbitmq: Harness, engine: Engine, tables: Tables, time: int, eventually: Callable[..., None]
) -> None:
    assert rabbitmq.url is not None
    name = f"outbox-{uuid.uuid4().hex[:12]}"
    topic = Topic(name, "readers", ordered=True)
    with messaging.connect(rabbitmq.url, topology=topic) as broker:
        added = add_all(engine, tables, name)
        relay = start(engine, tables, rabbitmq.url, name, "none")
        try:
            go(relay)
            eventually(lambda: waiting(engine, tables) < len(added), 60)
            relay.send_signal(signal.SIGTERM)
            errors = relay.communicate(timeout=60)[1]
        finally:
            relay.kill()
        assert relay.returncode == 0, errors
        with engine.connect() as connection:
            lanes = tables.lanes
            assert connection.scalar(select(func.count()).where(lanes.c.owner.is_not(None))) == 0
        with Relay(engine, broker, tables=tables, batch=20, poll=0.1):
            eventually(lambda: waiting(engine, tables) == 0, 60)
        found, again = first_occurrences(broker, name, len(added))
        broker.delete(topic)
    assert (found, again) == (added, 0), "what was published is taken out, and the rest is left to the next"


@pytest.mark.only("kafka:4.2")
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("step", STEPS)
def test_relays_killed_on_kafka(
    kafka: Harness, engine: Engine, tables: Tables, step: str, time: int, eventually: Callable[..., None]
) -> None:
    check_crash(kafka, engine, tables, step, eventually)
