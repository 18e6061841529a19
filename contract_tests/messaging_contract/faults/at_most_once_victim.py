"""A process that handles messages at most once, and kills itself as its third one is about to be handled.

`python -m messaging_contract.faults.at_most_once_victim URL NAME GROUP HOW`: reads NAME (GROUP empty: a queue), HOW is
"receive" or "worker". It prints the id of each message that it was given, before anything else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

import messaging
from messaging import Delivery, Worker

How = Literal["receive", "worker"]
_LAST = 3


def run(url: str, name: str, group: str, how: How, timeout: float) -> list[str]:
    """Runs a victim to its end and returns what it was given: the last of them was not handled.

    Raises AssertionError when it did not kill itself, TimeoutExpired when it did not within `timeout` seconds.
    """
    process = subprocess.run(
        [sys.executable, "-m", __spec__.name if __spec__ else __name__, url, name, group, how],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, f"it ended with {process.returncode}: {process.stderr[-2000:]}"
    return str(process.stdout).split()


def main(arguments: Sequence[str]) -> None:
    url, name, group, how = arguments
    assert how in get_args(How), how
    given = 0

    def handle(delivery: Delivery) -> None:
        nonlocal given
        os.write(1, f"{delivery.id}\n".encode())  # unbuffered: what was said before the kill is read
        given += 1
        if given == _LAST:
            os.kill(os.getpid(), signal.SIGKILL)

    broker = messaging.connect(url)
    options: dict[str, Any] = {"lease": 3.0} if broker.capabilities.lease else {}
    if how == "worker":
        worker = Worker(broker)
        worker.on(name, group or None, delivery="at-most-once", **options)(handle)
        worker.run()
    consumer = broker.subscribe(name, group or None, delivery="at-most-once", **options)
    while True:
        for delivery in consumer.receive(1):
            handle(delivery)


if __name__ == "__main__":
    main(sys.argv[1:])
