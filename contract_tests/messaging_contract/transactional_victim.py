"""A worker process that copies messages exactly once, and kills itself at one step of a transaction.

`python -m messaging_contract.transactional_victim URL IN GROUP OUT STEP`: publishes the body of each message of IN to
OUT, five a transaction, and is killed at STEP of its second transaction.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Literal, get_args

import messaging

Step = Literal["published", "flushed", "committed"]
"""With everything published in the open transaction, on its way to the broker; once the broker has it; right after the
commit."""


def run(url: str, source: str, group: str, target: str, step: Step, timeout: float) -> None:
    """Runs a victim to its end. Raises AssertionError when it did not kill itself within `timeout` seconds."""
    process = subprocess.run(
        [sys.executable, "-m", "messaging_contract.transactional_victim", url, source, group, target, step],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, f"it ended with {process.returncode}: {process.stderr[-2000:]}"


def main(arguments: Sequence[str]) -> None:
    url, name, group, target, step = arguments
    assert step in get_args(Step), step
    consumer = messaging.connect(url, topology=messaging.Topic(target)).subscribe(name, group, delivery="exactly-once")
    done = 0
    while True:
        with consumer.transaction() as transaction:
            deliveries = transaction.receive(5)
            for delivery in deliveries:
                headers = dict(delivery.headers)
                transaction.publish(target, delivery.body, key=delivery.key, id=delivery.id, headers=headers)
            if step == "flushed":
                transaction.flush()
            done += bool(deliveries)
            if done == 2 and step != "committed":
                os.kill(os.getpid(), signal.SIGKILL)
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
