"""Faults of a container: it freezes, dies, comes back and runs short of memory, and the page's example is true."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import messaging
from messaging import Queue
from messaging_contract.brokers import Settings
from messaging_contract.containers import ContainersUnavailable, engine, find
from messaging_contract.containers.rabbitmq import RabbitMQContainer


@pytest.fixture(scope="module")
def container() -> Iterator[RabbitMQContainer]:
    """One of its own: others would be hurt."""
    _need_an_engine()
    with find("rabbitmq:4").container() as container:
        assert isinstance(container, RabbitMQContainer)
        yield container


def _need_an_engine() -> None:
    try:
        engine.check()
    except ContainersUnavailable as error:
        if Settings.of([], None, False, os.environ).require:
            raise
        pytest.skip(f"not run: {error}")


def test_paused_it_answers_nothing_and_unpaused_it_does(container: RabbitMQContainer) -> None:
    assert container.answers()
    container.pause()
    try:
        assert not container.answers()
    finally:
        container.unpause()
    assert container.answers()


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_it_comes_back_on_the_same_port_with_what_it_confirmed(container: RabbitMQContainer, how: str) -> None:
    url, queue = container.url, Queue(f"kept-{how}")
    started = _started_at(container)
    with messaging.connect(url, topology=queue) as broker:
        until = time.monotonic() + 4  # RabbitMQ needs about two seconds to write down where a new queue is
        while time.monotonic() < until:
            broker.publish(queue, how)
    getattr(container, how)()
    assert _started_at(container) != started
    assert container.url == url
    with messaging.connect(url, topology=queue) as broker, broker.subscribe(queue) as consumer:
        (delivery,) = consumer.receive(1, 30)
        assert delivery.value == how


def test_a_memory_alarm_blocks_publishers_until_it_is_cleared(container: RabbitMQContainer) -> None:
    queue = Queue("alarmed")
    with messaging.connect(container.url, topology=queue) as broker:
        broker.publish(queue, 1)
        container.raise_memory_alarm()
        try:
            assert "memory" in container.execute("rabbitmqctl", "eval", "rabbit_alarm:get_alarms().")
            started = time.monotonic()
            with pytest.raises(messaging.PublishTimeout):
                broker.publish(queue, 2, timeout=1.0)
            assert time.monotonic() - started >= 1.0
        finally:
            container.clear_memory_alarm()
        assert "memory" not in container.execute("rabbitmqctl", "eval", "rabbit_alarm:get_alarms().")
        broker.publish(queue, 3, timeout=30)


def test_a_command_that_fails_is_told(container: RabbitMQContainer) -> None:
    with pytest.raises(RuntimeError, match=r"rabbitmqctl no_such in rabbitmq:4 ended with \d+"):
        container.execute("rabbitmqctl", "no_such")


def test_the_example_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    _need_an_engine()
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(compile(example, "docs/faults.md", "exec"), {"__name__": "example"})
    assert "no confirmation within 1 s" in capsys.readouterr().out


def _started_at(container: RabbitMQContainer) -> str:
    inner = container._container
    inner.reload()
    started: str = inner.attrs["State"]["StartedAt"]
    return started
