"""`messaging dlq`, against each broker in containers where there are some, and its bad input."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import messaging
from messaging import Broker, Topic

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def broker(broker_url: str) -> Iterator[Broker]:
    if broker_url == "memory://":
        pytest.skip("each command has a memory broker of its own")
    with messaging.connect(broker_url) as connected:
        yield connected


@pytest.fixture
def topic(broker: Broker) -> Iterator[Topic]:
    """A topic whose group `payment` gave up two messages."""
    topic = Topic(f"test-{uuid.uuid4().hex[:12]}", "payment", "shipping")
    broker.declare(topic)
    broker.publish(topic, {"n": 1}, id="one", headers={"colour": "red"})
    broker.publish(topic, {"n": 2}, id="two", headers={"colour": "blue"})
    with broker.subscribe(topic, "payment") as consumer:
        for seen, delivery in enumerate(consumer.iterate(timeout=20), 1):
            delivery.reject("no money", error=ValueError())
            if seen == 2:
                break
    yield topic
    broker.delete(topic)


def test_peek_redrive_purge(run: Run, broker: Broker, broker_url: str, topic: Topic, tmp_path: Path) -> None:
    where = (topic.name, "--group", "payment", "--broker", broker_url)
    status, out = run("dlq", "peek", *where)
    assert status == 0
    assert "no money" in out
    assert "2 shown of 2" in out
    status, out = run("dlq", "peek", *where, "--json", "--header", "colour=red")
    (letter,) = json.loads(out)
    assert (letter["id"], letter["error"], letter["body"]) == ("one", "ValueError", '{"n":1}')
    status, out = run("dlq", "redrive", *where, "--dry-run", "--older-than", "1h")
    assert (status, out.splitlines()) == (
        0,
        [f"0 would be moved from {topic.name}--payment--dlq to subscription '{topic.name}--payment'", "2 not chosen"],
    )
    ledger = str(tmp_path / "ledger")
    status, out = run("dlq", "redrive", *where, "--id", "one", "--rate", "50", "--ledger", ledger, "--json")
    assert (status, json.loads(out)["moved"]) == (0, 1)
    with broker.subscribe(topic, "payment") as consumer:
        (back,) = consumer.receive(5, 20)
        assert back.id == "one"
        back.ack()
    status, out = run("dlq", "purge", *where)
    assert (status, "say --yes" in out) == (1, True)
    assert run("dlq", "purge", *where, "--yes")[0] == 0
    assert broker.dead_letter_depth(topic, "payment") == 0


def test_list(run: Run, broker: Broker, broker_url: str, topic: Topic) -> None:
    Path("messaging.toml").write_text(
        f"[topology.topics.{topic.name}.subscriptions.payment]\n[topology.queues.never-made]\n"
    )
    status, out = run("dlq", "list", "--broker", broker_url, "--json")
    assert status == 0
    depths = {row["name"]: row["depth"] for row in json.loads(out)}
    assert depths == {f"{topic.name}--payment--dlq": 2, "never-made--dlq": None}


def test_other_groups_and_the_origin_may_be_gone(run: Run, broker: Broker, broker_url: str, topic: Topic) -> None:
    """Who looks at dead letters declares nothing, so what differs elsewhere is in nobody's way."""
    Path("messaging.toml").write_text(
        f"[topology.topics.{topic.name}.subscriptions.payment]\n"
        f'[topology.topics.{topic.name}.subscriptions.never-made]\npattern = "other.*"\n'
    )
    status, out = run("dlq", "list", "--broker", broker_url, "--json")
    assert status == 0
    depths = {row["name"]: row["depth"] for row in json.loads(out)}
    assert depths == {f"{topic.name}--payment--dlq": 2, f"{topic.name}--never-made--dlq": None}
    where = (topic.name, "--group", "payment", "--broker", broker_url)
    assert "2 shown of 2" in run("dlq", "peek", *where)[1]
    status, out = run("dlq", "redrive", *where, "--limit", "1", "--json")
    assert (status, json.loads(out)["moved"], json.loads(out)["unseen"]) == (0, 1, 1)
    status, out = run("dlq", "peek", topic.name, "--broker", broker_url)
    assert (status, "say which group" in out) == (1, True)


def test_what_a_message_holds_is_shown_and_not_obeyed(run: Run, broker: Broker, broker_url: str, topic: Topic) -> None:
    broker.publish(topic, b"\x1b[31mred\x00", id="three")
    with broker.subscribe(topic, "payment") as consumer:
        next(iter(consumer.iterate(timeout=20))).reject("\x1b[2J")
    status, out = run("dlq", "peek", topic.name, "--group", "payment", "--broker", broker_url, "--id", "three")
    assert (status, "\x1b" in out, "\x00" in out) == (0, False, False)
    assert r"\x1b[31mred\x00" in out


def test_a_queue_that_is_not_there(run: Run, broker: Broker, broker_url: str) -> None:
    status, out = run("dlq", "peek", "never-made", "--broker", broker_url)
    assert status == 1
    assert "never-made" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("peek", "jobs", "--older-than", "soon"), "such as 15m"),
        (("peek", "jobs", "--header", "colour"), "NAME=VALUE"),
        (("peek", "jobs", "--error", "("), "no regular expression"),
        (("list",), "is configured"),
        (("peek", "jobs", "--broker", "nowhere"), "nowhere"),
    ],
)
def test_bad_input(run: Run, arguments: tuple[str, ...], told: str) -> None:
    Path("messaging.toml").write_text('[profiles.dev]\nurl = "memory://"\n')
    status, out = run("dlq", *arguments)
    assert status in (1, 2)
    assert told in out
    assert len(out.splitlines()) == 1


@pytest.mark.usefixtures("broker")
def test_advice_for_who_looks_without_the_file(run: Run, broker_url: str) -> None:
    status, output = run("dlq", "peek", f"test-{uuid.uuid4().hex[:12]}", "--broker", broker_url)
    assert status == 1
    assert "--group GROUP when it is a topic, or --ordered when it is ordered, or --file" in output
