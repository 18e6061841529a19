"""A process that copies messages in transactions of two, and is killed at one step of its second transaction.

`python copier.py URL IN OUT STEP`: reads IN as group "g", until nothing more comes with the step
"finish". It looks for its step where the adapter calls the client, which is the only place some of them can be seen.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import messaging
from messaging import MessagingError
from messaging_kafka.transactional_sender import TransactionalSender

Step = Literal["received", "published", "flushed", "positioned", "committing", "committed", "finish"]
"""Received; published, on its way; stored at the broker; once the position is part of the transaction; at a random
moment of the commit; right after it."""

STEPS: tuple[Step, ...] = get_args(Step)[:-1]
_LONGEST_COMMIT = 0.02
"""Seconds within which a commit is killed: one takes about five milliseconds."""


def start(url: str, source: str, target: str, step: Step) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, url, source, target, step],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, source: str, target: str, step: str) -> None:
    number = 0
    insist: Callable[[TransactionalSender, Callable[[float], Any], float], None] = TransactionalSender._insist

    def watched(self: TransactionalSender, call: Callable[[float], Any], deadline: float) -> None:
        committing = getattr(call, "__name__", "") == "commit_transaction"
        if number == 2 and step == "committing" and committing:
            threading.Timer(random.uniform(0, _LONGEST_COMMIT), _die).start()
            insist(self, call, deadline)
            threading.Event().wait()
        insist(self, call, deadline)
        if number == 2 and step == "positioned" and isinstance(call, partial):
            _die()

    TransactionalSender._insist = watched  # type: ignore[method-assign]
    broker = messaging.connect(url, topology=messaging.Topic(target), transaction_timeout=2)
    consumer = broker.subscribe(source, "g", delivery="exactly-once")
    last = time.monotonic()
    while step != "finish" or time.monotonic() - last < 5 or broker.depth(source, "g"):
        try:
            with consumer.transaction() as transaction:
                deliveries = transaction.receive(2)
                number += bool(deliveries)
                if number == 2 and step == "received":
                    _die()
                for delivery in deliveries:
                    transaction.publish(target, delivery.value, key=delivery.key)
                if number == 2 and step == "published":
                    _die()
                if step == "flushed":
                    transaction.flush()
                    if number == 2:
                        _die()
        except MessagingError as error:
            if not error.retryable:
                raise
            print(f"again: {error}", file=sys.stderr)
            continue
        if deliveries:
            last = time.monotonic()
        if number == 2 and step == "committed":
            _die()
    broker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
