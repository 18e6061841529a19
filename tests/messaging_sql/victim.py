"""A relay in a process of its own that kills itself at a given step of its first batch.

python victim.py DATABASE SCHEMA BROKER TOPIC STEP
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sqlalchemy import create_engine

import messaging
from messaging import Topic
from messaging_sql import Relay, Tables

STEPS = ("claimed", "published", "marked")
LEASE = 2.0


class Victim(Relay):
    step = ""

    def _publish(self, *arguments: Any) -> None:
        self._die_at("claimed")
        super()._publish(*arguments)

    def _settle(self, outcome: Any) -> None:
        if not outcome.confirmed:  # a producer that is not connected yet may need a second attempt
            super()._settle(outcome)
            return
        self._die_at("published")
        super()._settle(outcome)
        self._die_at("marked")

    def _die_at(self, step: str) -> None:
        if self.step == step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(database: str, schema: str, url: str, topic: str, step: str) -> None:
    engine = create_engine(database)
    with messaging.connect(url, topology=Topic(topic, "readers", ordered=True)) as broker:
        relay = Victim(engine, broker, tables=Tables(schema or None), batch=20, lease=LEASE, poll=0.1)
        relay.step = step
        print("ready", flush=True)
        sys.stdin.readline()
        relay.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
