from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import messaging
from messaging.cli import demo as command
from messaging.demo import Pipeline, Report

Run = Callable[..., tuple[int, str]]

COMMAND = [sys.executable, "-m", "messaging.cli"]

EXPECTED = """\
Order pipeline on BROKER: 100 orders, each to inventory, payment and notification.
Planned failures, the same in every run: retries 16, dead letters 1.
 25 % of 300 done
 50 % of 300 done
 75 % of 300 done
100 % of 300 done

group         received  handled  retried  dead-lettered  duplicates  orders/s
─────────────────────────────────────────────────────────────────────────────
inventory          100      100        2              0           0         N
payment            100       99       10              1           0         N
notification       100      100        4              0           0         N

Dead letters, read back from their queues:
  payment: 1 x CardDeclined: card declined (planned)
Ledger balances: 100 published = handled + dead-lettered, in each group.
"""


def test_the_output_is_the_same_on_every_broker(run: Run, broker_url: str) -> None:
    status, output = run("demo", "--orders", "100", "--broker", broker_url)
    name = broker_url.partition("://")[0]
    same = re.sub(r"[\d,]+$", "N", output.replace(f"on {name}:", "on BROKER:"), flags=re.MULTILINE)
    same = re.sub(r" +N$", "         N", same, flags=re.MULTILINE)
    assert (status, same) == (0, EXPECTED)


def test_json_is_the_only_thing_on_stdout() -> None:
    done = subprocess.run([*COMMAND, "demo", "--orders", "50", "--json"], capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert done.stderr == ""
    assert document["balanced"] is True
    assert [group["received"] for group in document["groups"]] == [50, 50, 50]
    assert document["groups"][1]["dead_letters"] == {"order-0000007": "CardDeclined: card declined (planned)"}


def test_rows_of_a_file_are_the_orders(run: Run, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("id,customer\n1,ann\n2,bob\n3,ann\n", "utf-8")
    status, output = run("demo", "--input", "orders.csv", "--key", "customer", "--json")
    assert (status, json.loads(output)["orders"]) == (0, 3)
    status, output = run("demo", "--input", "orders.csv", "--orders", "2", "--json")
    assert (status, json.loads(output)["orders"]) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--broker", "rabitmq://localhost"], "did you mean 'rabbitmq'?"),
        (["--broker", "memory://?capacitty=3"], "capacity"),
        (["--broker", "prod"], "no profile 'prod'"),
        (["--input", "missing.csv"], "missing.csv: cannot be read: No such file"),
        (["--key", "id"], "--input"),
        (["--orders", "0"], "--orders"),
        (["--orders", "many"], "--orders"),
    ],
)
def test_wrong_usage_is_a_line_and_status_2(run: Run, arguments: list[str], text: str) -> None:
    status, output = run("demo", *arguments)
    assert status == 2
    assert text in output
    assert "Traceback" not in output


def test_a_broker_that_is_down_is_a_line_and_status_1(run: Run) -> None:
    pytest.importorskip("pika")
    status, output = run("demo", "--broker", "rabbitmq://127.0.0.1:1/?connect_timeout=2")
    assert status == 1
    assert output.startswith("messaging: ")
    assert output.count("\n") == 1


def test_errors_are_json_too(run: Run) -> None:
    status, output = run("demo", "--broker", "nats://x", "--json")
    assert status == 2
    assert json.loads(output.splitlines()[0])["kind"] == "ConfigurationError"


def test_profiles_name_brokers_and_their_topology_is_left_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "messaging.toml").write_text(
        '[profiles.here]\nurl = "memory://"\n[topology.queues.jobs]\n', encoding="utf-8"
    )
    declared: list[str] = []
    declare = messaging.Broker.declare
    monkeypatch.setattr(
        messaging.Broker,
        "declare",
        lambda self, topology: (
            declared.extend(d.name for d in messaging.Topology.of(topology)),
            declare(self, topology),
        )[1],
    )
    status, _ = run("demo", "--orders", "5", "--broker", "here")
    assert status == 0
    assert declared
    assert all(name.startswith("demo-orders-") for name in declared)
    monkeypatch.setenv("MESSAGING_PROFILE", "hree")
    assert "did you mean 'here'?" in run("demo")[1]
    monkeypatch.setenv("MESSAGING_PROFILE", "here")
    assert run("demo", "--orders", "5")[0] == 0


@pytest.mark.parametrize("keep", [False, True])
def test_the_topic_is_deleted_unless_kept(run: Run, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(command, "_delete", lambda _broker, topic: deleted.append(topic.name))
    status, output = run("demo", "--orders", "10", *(["--keep"] if keep else []))
    assert status == 0
    assert bool(deleted) is not keep
    assert ("Kept on the broker: topic demo-orders-" in output) is keep


def test_kept_dead_letters_stay_in_their_queue() -> None:
    with messaging.connect("memory://") as broker:
        topic = messaging.demo.demo_topic()
        pipeline = Pipeline(broker, topic, messaging.demo.sample_orders(100))
        report = pipeline.run(lambda _progress: None, keep_dead_letters=True)
        assert report.balanced
        assert broker.dead_letter_depth(topic, "payment") == 1


def test_an_order_that_is_lost_is_named_and_status_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    received = messaging.demo.pipeline.GroupLedger.received

    def forgetful(self: messaging.demo.pipeline.GroupLedger, order: str) -> int:
        lost = self.group == "notification" and order == "order-0000004"
        return 0 if lost else received(self, order)

    whole = Pipeline.run

    def impatient(self: Pipeline, show: object, **options: object) -> Report:
        return whole(self, show, **{**options, "stall_timeout": 1.0})  # type: ignore[arg-type]

    monkeypatch.setattr(messaging.demo.pipeline.GroupLedger, "received", forgetful)
    monkeypatch.setattr(Pipeline, "run", impatient)
    status, output = run("demo", "--orders", "10")
    assert status == 1
    assert "Ledger does not balance" in output
    assert "notification: 1 neither handled nor in the dead-letter queue: order-0000004" in output


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(number: signal.Signals, status: int, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*COMMAND, "demo", "--orders", "200000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert "Order pipeline" in process.stdout.readline()
        started = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert time.monotonic() - started < 20
