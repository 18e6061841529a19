"""Faults of processes and of the memory broker's clock: each does what it says."""

from __future__ import annotations

import signal

import pytest

import messaging
from messaging import Queue
from messaging_contract.faults import ChildProcess
from messaging_memory import ManualClock, MemoryServer

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    print("ready", flush=True)
    time.sleep(600)
finally:
    print("cleaned up", flush=True)
"""


def test_a_killed_process_runs_nothing_more_and_what_it_wrote_is_read() -> None:
    with ChildProcess(["-c", STUBBORN]) as process:
        process.expect("ready", 30)
        process.kill()
        assert process.line(30) is None
        assert process.line(30) is None, "also when asked again"
        assert process._process.returncode == -signal.SIGKILL


def test_a_process_that_says_nothing_or_ends() -> None:
    with ChildProcess(["-c", STUBBORN]) as process:
        process.expect("ready", 30)
        with pytest.raises(TimeoutError, match=r"no line within 0\.1 s"):
            process.line(0.1)
    with (
        ChildProcess(["-c", "print('other'); raise SystemExit('why')"]) as process,
        pytest.raises(AssertionError, match="it ended before it wrote 'ready': why"),
    ):
        process.expect("ready", 30)


def test_a_running_clock_that_is_moved_ends_leases_at_once() -> None:
    clock = ManualClock(running=True)
    before = clock.now()
    with messaging.connect("memory://", server=MemoryServer(clock), topology=Queue("q")) as broker:
        broker.publish("q", 1)
        with broker.subscribe("q", lease=600.0, heartbeat=False) as consumer, broker.subscribe("q") as other:
            assert len(consumer.receive(1, 5)) == 1
            assert other.receive(1, 0.1) == []
            clock.advance(601)
            assert len(other.receive(1, 5)) == 1
    assert clock.now() > before + 601
