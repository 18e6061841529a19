from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import messaging
from messaging import Topic

EXAMPLES = Path(__file__).parents[2] / "examples"
PIPELINE = EXAMPLES / "order_pipeline" / "main.py"
GROUPS = ("inventory", "payment", "notification")


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESSAGING_")}
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
