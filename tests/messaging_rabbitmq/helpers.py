"""What the tests of this adapter share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

from messaging.delivery import Delivery
from messaging.driver import Outgoing, Receiver, Sender
from messaging.errors import MessagingError
from messaging.message import Message, id_factory
from messaging.topology import Destination
from messaging_rabbitmq import RabbitMQDriver, RabbitMQOptions

new_id = id_factory()


def message(body: bytes = b"body", **fields: object) -> Message:
    return Message(body, id=new_id(), timestamp=time.time(), **fields)  # type: ignore[arg-type]


def publish(
    sender: Sender, destination: Destination, *messages: Message, delay: float = 0.0, mandatory: bool = False
) -> list[MessagingError | None]:
    """What became of each message, once that is known for all."""
    outcomes: dict[int, MessagingError | None] = {}
    done = Event()

    def record(index: int, error: MessagingError | None) -> None:
        assert index not in outcomes, "done twice"
        outcomes[index] = error
        if len(outcomes) == len(messages):
            done.set()

    sender.send(messages, Outgoing(destination, delay, mandatory), record)
    assert done.wait(30), f"{len(outcomes)} of {len(messages)} reported"
    return [outcomes[index] for index in range(len(messages))]


def take(receiver: Receiver, count: int, within: float = 10.0) -> list[Delivery]:
    """Exactly `count` deliveries."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + within
    while len(taken) < count and time.monotonic() < deadline:
        taken += receiver.receive(count - len(taken), deadline - time.monotonic())
    assert len(taken) == count, f"{len(taken)} of {count} deliveries within {within} s"
    return taken


def eventually(condition: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.02)


@contextmanager
def opened(options: RabbitMQOptions, **changes: object) -> Iterator[RabbitMQDriver]:
    driver = RabbitMQDriver(replace(options, **changes))  # type: ignore[arg-type]
    driver.open()
    try:
        yield driver
    finally:
        driver.close()
