from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

import messaging
from messaging import Queue, Topic
from messaging_contract.harness import Harness

EXAMPLES = Path(__file__).parents[2] / "examples"
PIPELINE = EXAMPLES / "order_pipeline" / "main.py"
GROUPS = ("inventory", "payment", "notification")


def environment(**variables: str) -> dict[str, str]:
    """As a user has it: without these tests' brokers, and with a path on which examples find what is beside them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESSAGING_")}
    inherited.pop("PYTHONSAFEPATH", None)
    return {**inherited, "PYTHONUNBUFFERED": "1", **variables}


def run(script: Path, *arguments: str, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(**variables),
        cwd=cwd,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def topic(broker_url: str) -> Iterator[str]:
    """The name of a topic of this test's own; deleted afterwards."""
    name = f"example-{uuid.uuid4().hex[:12]}"
    yield name
    if broker_url != "memory://":
        with messaging.connect(broker_url) as broker:
            broker.delete(Topic(name, *GROUPS))


def test_quickstart(tmp_path: Path, broker_url: str, topic: str) -> None:
    text = (EXAMPLES / "quickstart.py").read_text("utf-8")
    script = tmp_path / "quickstart.py"
    # As it is but for the topic, which on a shared broker has to be this test's own.
    script.write_text(text.replace('"orders"', repr(topic)), "utf-8")
    assert run(script, cwd=tmp_path, MESSAGING_URL=broker_url).splitlines() == [
        "inventory {'id': 7, 'item': 'tea'} order.placed attempt 1",
        "payment {'id': 7, 'item': 'tea'} order.placed attempt 1",
    ]


def test_quickstart_is_the_one_in_the_readme(tmp_path: Path) -> None:
    text = (EXAMPLES / "quickstart.py").read_text("utf-8")
    assert f"```python\n{text}```" in (EXAMPLES.parent / "README.md").read_text("utf-8")
    assert run(EXAMPLES / "quickstart.py", cwd=tmp_path).startswith("inventory {'id': 7")


def test_order_pipeline_in_one_process(tmp_path: Path, broker_url: str, topic: str) -> None:
    output = run(PIPELINE, cwd=tmp_path, MESSAGING_URL=broker_url, ORDERS_TOPIC=topic)
    assert sorted(output.splitlines()) == [
        "inventory: 100 orders handled",
        "notification: 100 orders handled",
        "order-service: 100 orders placed",
        "payment: 100 orders handled",
    ]


def test_order_pipeline_in_a_process_each(tmp_path: Path, broker_url: str, topic: str) -> None:
    if broker_url == "memory://":
        pytest.skip("the memory broker lives in one process")
    with messaging.connect(broker_url, topology=Topic(topic, *GROUPS)):
        pass  # declared, so that no group misses an order however late it is up
    processes = [
        subprocess.Popen(
            [sys.executable, str(PIPELINE), group, "50"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment(MESSAGING_URL=broker_url, ORDERS_TOPIC=topic),
        )
        for group in GROUPS
    ]
    try:
        run(PIPELINE, "order-service", "50", cwd=tmp_path, MESSAGING_URL=broker_url, ORDERS_TOPIC=topic)
        output = "".join(process.communicate(timeout=90)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sorted(output.splitlines()) == [f"{group}: 50 orders handled" for group in sorted(GROUPS)]


def test_a_fourth_group_that_the_order_service_does_not_know(tmp_path: Path, broker_url: str, topic: str) -> None:
    if broker_url == "memory://":
        pytest.skip("the memory broker lives in one process")
    with subprocess.Popen(
        [sys.executable, str(PIPELINE.with_name("analytics.py")), "50"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(MESSAGING_URL=broker_url, ORDERS_TOPIC=topic),
    ) as analytics:
        try:
            assert analytics.stdout is not None
            assert analytics.stdout.readline() == "analytics: ready\n"
            run(PIPELINE, "order-service", "50", cwd=tmp_path, MESSAGING_URL=broker_url, ORDERS_TOPIC=topic)
            output = analytics.communicate(timeout=90)[0]
        finally:
            analytics.kill()
    with messaging.connect(broker_url) as broker:
        broker.delete(Topic(topic, "analytics"))
    assert output == "analytics: 50 orders, 1275.00 in all\n"


def test_retry_dlx(tmp_path: Path, broker_url: str) -> None:
    queue = f"example-{uuid.uuid4().hex[:12]}"
    try:
        script = str(EXAMPLES / "retry_dlx" / "main.py")
        output = subprocess.run(
            [sys.executable, script, "--ttl", "0.2", "--rounds", "2"],
            capture_output=True,
            text=True,
            timeout=150,
            env=environment(MESSAGING_URL=broker_url, WORK_QUEUE=queue),
            cwd=tmp_path,
            check=True,
        ).stdout
    finally:
        if broker_url != "memory://":
            with messaging.connect(broker_url) as broker:
                broker.delete(Queue(queue))
    assert output.splitlines() == [
        "9 jobs done, job 3 in attempt 2",
        f'in {queue}--dlq: {{"job":7}}, ValueError after 3 attempts',
        "1 redriven",
        "10 jobs done, 0 failed",
    ]


def test_overload(tmp_path: Path, broker_url: str) -> None:
    queue = f"example-{uuid.uuid4().hex[:12]}"
    load = {"messages": 400, "size": 20000, "rate": 200, "work": 0.015, "high": 40, "low": 10}
    small = [word for name, value in load.items() for word in (f"--{name}", str(value))]
    try:
        script = EXAMPLES / "overload" / "main.py"
        output = run(script, *small, cwd=tmp_path, MESSAGING_URL=broker_url, OVERLOAD_QUEUE=queue)
    finally:
        if broker_url != "memory://":
            with messaging.connect(broker_url) as broker:
                broker.delete(Queue(queue))
    backlogs = [int(found) for found in re.findall(r"most ([\d,]+) messages", output.replace(",", ""))]
    assert len(backlogs) == 2, output
    assert backlogs[1] < backlogs[0], output
    assert re.search(r"^as it is: .* held for 0\.0 s$", output, re.MULTILINE)
    assert not re.search(r"^with the throttle: .* held for 0\.0 s$", output, re.MULTILINE)
    chart = ElementTree.parse(tmp_path / "overload.svg")
    assert len(chart.findall(".//{*}polyline")) == 4


def test_order_pipeline_refuses_an_unknown_role(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PIPELINE), "billing"], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 1
    assert "unknown role 'billing'" in done.stderr


def test_order_pipeline_profiles() -> None:
    settings = messaging.config.load(PIPELINE.with_name("messaging.toml"))
    schemes = {name: messaging.config.resolve(name, settings, {}).scheme for name in settings["profiles"]}
    assert schemes == {"memory": "memory", "rabbitmq": "rabbitmq", "kafka": "kafka", "sqs": "sqs"}


def test_typed_payloads(tmp_path: Path) -> None:
    lines = run(EXAMPLES / "typed_payloads.py", cwd=tmp_path).splitlines()
    assert lines[:4] == [
        "payments Payment(order=7, cents=1250)",
        "payments rejected: DecodeError",
        "refunds Refund(order=7, reason='broken')",
        "refunds rejected: DecodeError",
    ]
    assert lines[4:] in ([], ["invoices order=7 lines=['tea']", "invoices rejected: DecodeError"])


def test_asyncio_consumer(tmp_path: Path, broker_url: str, topic: str) -> None:
    output = run(EXAMPLES / "asyncio_consumer.py", cwd=tmp_path, MESSAGING_URL=broker_url, ORDERS_TOPIC=topic)
    assert sorted(output.splitlines()) == [
        "20 orders placed",
        "inventory: 20 orders handled",
        "payment: 20 orders handled",
    ]


def test_word_count(tmp_path: Path, kafka: Harness) -> None:
    """A killed counter costs the next one some ten seconds."""
    script = str(EXAMPLES / "word_count" / "main.py")
    output = subprocess.run(
        [sys.executable, script, "--crash", "1", "--copies", "5"],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment(MESSAGING_URL=kafka.url or ""),
        cwd=tmp_path,
        check=True,
    ).stdout.splitlines()
    assert output[:2] == ["exactly-once, 1 crashes: 1360 words counted of 1360", "  'that': 65 of 65"]
    counted = re.fullmatch(r"at-least-once, 1 crashes: (\d+) words counted of 1360", output[4])
    assert counted
    assert int(counted[1]) >= 1360


OUTBOX = [
    "one order failed: no row, and no event",
    "20 orders placed, 20 paid; 20 messages came again and paid nothing",
]


def test_order_outbox(tmp_path: Path, broker_url: str, topic: str) -> None:
    script = EXAMPLES / "order_outbox" / "main.py"
    assert run(script, cwd=tmp_path, MESSAGING_URL=broker_url, ORDERS_TOPIC=topic).splitlines() == OUTBOX


def test_order_outbox_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    script = EXAMPLES / "order_outbox" / "main.py"
    assert run(script, "--database", postgresql_url, cwd=tmp_path).splitlines() == OUTBOX


BANK = EXAMPLES / "bank_account" / "main.py"
BALANCES = "Ada 15.00, Bob 20.00, Eve 20.00"
BANKED = [
    "refused: 1000000 cents of 2000 cannot be withdrawn",
    BALANCES,
    "64 events, 64 received by notification",
    BALANCES,
]


def test_bank_account(tmp_path: Path, broker_url: str, topic: str) -> None:
    assert run(BANK, cwd=tmp_path, MESSAGING_URL=broker_url, ACCOUNTS_TOPIC=topic).splitlines() == BANKED
    assert run(BANK, "balances", cwd=tmp_path).splitlines() == [BALANCES]
    assert run(BANK, "rebuild", cwd=tmp_path).splitlines() == [
        "bank-balances: 64 events applied",
        "bank-turnover: 61 events applied",
    ]
    assert run(BANK, "balances", cwd=tmp_path).splitlines() == [BALANCES]


def test_bank_account_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    assert run(BANK, "--database", postgresql_url, cwd=tmp_path).splitlines() == BANKED
