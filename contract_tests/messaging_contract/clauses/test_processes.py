"""Forks and signals: a process that splits or is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from messaging import Closed
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause

_CHILD_ENDS_WITHIN = 25.0


@clause(
    "lifecycle.fork", "After a fork the child's copy raises Closed and the parent's goes on undisturbed.", failures=[16]
)
def test_fork(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    producer = broker.producer()
    consumer = bench.consume(source, broker=broker)
    ledger.publish_one(broker, source.destination, ledger.message())
    held = bench.one(consumer, ledger)
    child = os.fork()
    if child == 0:
        os._exit(
            _as_child(
                [
                    lambda: broker.publish(source.destination, 1),
                    lambda: producer.publish(source.destination, 1),
                    broker.ping,
                    lambda: consumer.receive(1, 0),
                ],
                [broker, producer, consumer],
            )
        )
    assert _exit_status(child) == 0
    held.ack()
    ledger.publish_one(producer, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    bench.quiet(consumer, ledger)
    ledger.check()


def _as_child(calls: list[Callable[[], Any]], closables: list[Any]) -> int:
    """Runs in the forked child. Returns 0 when every call raised Closed and every close returned."""
    for number, call in enumerate(calls, 1):
        try:
            call()
            return number
        except Closed:
            continue
        except BaseException:
            return 100 + number
    try:
        for closable in closables:
            closable.close()
    except BaseException:
        return 200
    return 0


def _exit_status(child: int) -> int:
    deadline = time.monotonic() + _CHILD_ENDS_WITHIN
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("a call in the forked child hangs")


_WORKER = """
import sys
import messaging
broker = messaging.connect(sys.argv[1], topology=messaging.Queue(sys.argv[2]))
worker = messaging.Worker(broker)
@worker.on(sys.argv[2])
def handle(delivery):
    print("started", flush=True)
    sys.stdin.readline()
    print("finished", flush=True)
broker.publish(sys.argv[2], 1)
worker.run()
left = broker.depth(sys.argv[2])
broker.close()
print("left", left, flush=True)
"""


@clause(
    "lifecycle.sigterm",
    "A worker's process that gets SIGTERM finishes the message at hand, acks it and ends with status 0.",
    anchors=[125],
    failures=[7],
    on=QUEUE,
    controls="url",
)
def test_sigterm(bench: Bench) -> None:
    url = bench.harness.url
    assert url is not None
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, url, bench.queue().name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n", process.stderr and process.stderr.read()
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)  # it waits for its handler, which goes on only now
        output, errors = process.communicate("go on\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert output == "finished\nleft 0\n", errors
