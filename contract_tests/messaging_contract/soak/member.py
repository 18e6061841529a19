"""A consumer of a queue that is there to be killed: `python -m messaging_contract.soak.member URL NAME`.

Writes the numbers of what it received, a batch a line, and then acks them.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import messaging
from messaging.errors import MessagingError, SettleFailed
from messaging_contract.soak.traffic import number_of


def main(url: str, name: str) -> None:
    while True:
        try:
            with messaging.connect(url) as broker:
                options: dict[str, Any] = {"lease": 10.0} if broker.capabilities.lease else {}
                consume(broker, name, options)
        except MessagingError:
            time.sleep(0.5)  # the broker is away


def consume(broker: messaging.Broker, name: str, options: dict[str, Any]) -> None:
    consumer = broker.subscribe(name, **options)
    while True:
        try:
            if deliveries := consumer.receive(100, 1.0):
                # In one call and unbuffered: what is acked was surely written.
                os.write(1, (" ".join(str(number_of(delivery)) for delivery in deliveries) + "\n").encode())
                consumer.ack(deliveries)
        except SettleFailed:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
