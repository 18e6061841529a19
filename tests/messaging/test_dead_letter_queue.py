"""The parts of a redrive that need no broker but the embedded one: bad input, the ledger file, what is chosen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import messaging
from messaging import Broker, DeadLetterQueue, Queue
from messaging.dead_letter import ERROR, FIRST_TIME, SOURCE, TIME
from messaging.dead_letter_queue import Choice, DeadLetter
from messaging.errors import ConfigurationError, TopologyError


@pytest.fixture
def broker() -> Iterator[Broker]:
    with messaging.connect("memory://", topology=Queue("jobs")) as connected:
        yield connected


def give_up(broker: Broker, *values: object) -> DeadLetterQueue:
    if not values:
        return broker.dead_letter_queue("jobs")
    broker.publish_many("jobs", values)
    with broker.subscribe("jobs") as consumer:
        for delivery in consumer.receive(len(values)):
            delivery.reject("no good")
    return broker.dead_letter_queue("jobs")


@pytest.mark.parametrize(
    "options", [{"rate": 0}, {"rate": -1.0}, {"rate": float("nan")}, {"rate": float("inf")}, {"limit": 0}]
)
def test_senseless_options(broker: Broker, options: dict[str, float]) -> None:
    letters = give_up(broker, 1)
    with pytest.raises(ConfigurationError):
        letters.redrive(**options)  # type: ignore[arg-type]
    assert letters.depth() == 1


@pytest.mark.parametrize("conditions", [{"error": "("}, {"older_than": -1.0}, {"newer_than": float("nan")}])
def test_senseless_choices(conditions: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Choice(**conditions)  # type: ignore[arg-type]


def test_without_a_dead_letter_queue(broker: Broker) -> None:
    with pytest.raises(TopologyError, match="without a dead-letter queue"):
        broker.dead_letter_queue(Queue("bare", dead_letter=False))


def test_a_limit_leaves_the_rest(broker: Broker) -> None:
    letters = give_up(broker, *range(7))
    assert letters.redrive(limit=3).moved == 3
    assert (letters.depth(), broker.depth("jobs")) == (4, 3)


def test_a_ledger_that_ends_in_half_a_line(broker: Broker, tmp_path: Path) -> None:
    letters = give_up(broker, 1, 2)
    file = tmp_path / "ledger"
    assert letters.redrive(limit=1, ledger=file).moved == 1
    with file.open("a") as lines:
        lines.write('{"moved": "ab')
    assert letters.redrive(ledger=file).moved == 1
    lines_now = file.read_text().splitlines()
    assert lines_now[2] == '{"moved": "ab'
    assert "@" in json.loads(lines_now[3])["moved"]


def test_a_dry_run_tells_what_would_happen_and_writes_nothing(broker: Broker, tmp_path: Path) -> None:
    letters = give_up(broker, 1, 2)
    broker.publish(Queue(letters.name, dead_letter=False), 3, headers={SOURCE: "elsewhere", TIME: "1.0"})
    file = tmp_path / "ledger"
    result = letters.redrive(dry_run=True, ledger=file)
    assert (result.moved, len(result.failed)) == (2, 1)
    assert not file.exists()
    assert letters.redrive(limit=1, ledger=file).moved == 1
    before = file.read_text()
    assert letters.redrive(dry_run=True, ledger=file).moved == 1
    assert file.read_text() == before
    assert letters.depth() == 2


@pytest.mark.parametrize("ahead", [60.0, 1e300])
def test_a_clock_that_is_ahead_hides_nothing(broker: Broker, ahead: float) -> None:
    letters = give_up(broker)
    for number in range(120):
        broker.publish(Queue(letters.name, dead_letter=False), number, headers={TIME: str(time.time() + ahead)})
    for number in range(5):
        broker.publish(
            Queue(letters.name, dead_letter=False), number, headers={TIME: str(time.time() - 60), ERROR: "Mine"}
        )
    assert len(letters.peek(200)) == 125
    assert len(letters.peek(200, Choice(error="Mine"))) == 5
    result = letters.redrive()
    assert (result.moved, result.later, result.unseen) == (5, 120, 0)
    assert letters.purge(Choice(newer_than=0.0)) == 120


@pytest.mark.parametrize("told", ["nan", "inf", "1e999", "soon", ""])
def test_a_time_that_is_none(broker: Broker, told: str) -> None:
    letters = give_up(broker)
    broker.publish(Queue(letters.name, dead_letter=False), 1, headers={TIME: told})
    (letter,) = letters.peek()
    assert letter.time is None
    assert letters.redrive().moved == 1


@pytest.mark.parametrize("content", ["orders\n", '{"redrive": "other", "broker": "memory"}\n', "[]\n", "\x00\xff"])
def test_a_file_that_is_not_its_ledger(broker: Broker, tmp_path: Path, content: str) -> None:
    letters = give_up(broker, 1)
    file = tmp_path / "ledger"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigurationError, match="ledger"):
        letters.redrive(ledger=file)
    assert file.read_text(encoding="latin-1") == content
    assert letters.depth() == 1


def test_a_ledger_that_cannot_be_written(broker: Broker, tmp_path: Path) -> None:
    letters = give_up(broker, 1)
    with pytest.raises(ConfigurationError, match="ledger"):
        letters.redrive(ledger=tmp_path / "missing" / "ledger")
    assert letters.depth() == 1


def test_what_another_program_put_there(broker: Broker) -> None:
    broker.declare(Queue("jobs--dlq", dead_letter=False))
    broker.publish("jobs--dlq", b"\xff", headers={TIME: "yesterday", FIRST_TIME: "", "dead-letter-attempts": "many"})
    (letter,) = broker.dead_letter_queue("jobs").peek()
    assert (letter.time, letter.first_time, letter.attempts, letter.source) == (None, None, None, "")
    assert letter not in Choice(older_than=0)
    assert letter in Choice()
    assert broker.dead_letter_queue("jobs").redrive().moved == 1
    assert broker.depth("jobs") == 1


def test_a_dead_letter_of_somewhere_else_stays(broker: Broker) -> None:
    broker.declare(Queue("jobs--dlq", dead_letter=False))
    broker.publish("jobs--dlq", 1, id="a", headers={"dead-letter-source": "orders"})
    result = broker.dead_letter_queue("jobs").redrive()
    ((failed, error),) = result.failed
    assert (result.moved, failed, "'orders'" in str(error)) == (0, "a", True)
    assert broker.dead_letter_depth("jobs") == 1


def test_age(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = DeadLetter("a", None, "", "jobs", "", "", 1, 1000.0, None, 900.0, {}, b"")
    monkeypatch.setattr("time.time", lambda: 1060.0)
    assert letter in Choice(older_than=60, newer_than=60)
    assert letter not in Choice(older_than=61)
    assert letter not in Choice(newer_than=59)
