"""A process killed between the dead letter and the deletion of its original."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from messaging import Queue
from messaging.broker import Broker

from .test_messages import take

Connect = Callable[..., Broker]

KILLED = """
import os, signal, sys, time
import messaging
from messaging_sqs.settlements import Settlements

def die(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)

Settlements._delete = die
url, name = sys.argv[1:]
with messaging.connect(url) as broker, broker.subscribe(name, lease=3) as consumer:
    (delivery,) = consumer.receive(1, 30)
    delivery.reject("no")
    time.sleep(60)
"""
"""Dies when the dead letter is stored and the original is about to be deleted: the driver's own step in between."""


@pytest.mark.only("sqs:elasticmq", "sqs:moto-process")
def test_killed_between_the_dead_letter_and_the_delete_it_is_in_both_queues(
    connect: Connect, url: str, name: str
) -> None:
    broker = connect(Queue(name))
    id_ = broker.publish(name, b"x")
    process = subprocess.run([sys.executable, "-c", KILLED, url, name], timeout=90, check=False)
    assert process.returncode == -signal.SIGKILL
    with broker.dead_letters(name) as graveyard:
        (dead,) = take(graveyard, 1)
        assert dead.id == id_
        dead.ack()
    with broker.subscribe(name) as consumer:
        (again,) = take(consumer, 1)
        assert (again.id, again.attempt) == (id_, 2)
        again.ack()
