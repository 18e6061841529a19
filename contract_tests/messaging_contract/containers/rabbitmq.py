"""RabbitMQ, as in the official `rabbitmq` image."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from messaging_contract.containers.base import BrokerContainer
from messaging_contract.containers.ports import HOST


class RabbitMQContainer(BrokerContainer):
    """One RabbitMQ node."""

    port_inside: ClassVar[int] = 5672

    @property
    def url(self) -> str:
        return f"rabbitmq://guest:guest@{HOST}:{self.port}/"

    def raise_memory_alarm(self) -> None:
        """Sets the memory mark to nothing: from then on the broker blocks every connection that publishes."""
        self.execute("rabbitmqctl", "set_vm_memory_high_watermark", "0")

    def clear_memory_alarm(self) -> None:
        """Sets the memory mark to 0.4 of the memory: the broker takes messages again. Idempotent."""
        self.execute("rabbitmqctl", "set_vm_memory_high_watermark", "0.4")

    def answers(self) -> bool:
        import pika  # type: ignore[import-untyped, unused-ignore]
        from pika.adapters.utils.connection_workflow import (  # type: ignore[import-untyped, unused-ignore]
            AMQPConnectorException,
        )
        from pika.exceptions import AMQPError  # type: ignore[import-untyped, unused-ignore]

        parameters = pika.ConnectionParameters(
            HOST,
            self.port,
            socket_timeout=2,
            stack_timeout=3,
            blocked_connection_timeout=2,
            connection_attempts=1,
        )
        try:
            with _quiet(), pika.BlockingConnection(parameters) as connection:
                connection.channel()
                return True
        except (AMQPError, AMQPConnectorException, OSError):
            return False

    @contextmanager
    def short_ack_timeout(self) -> Iterator[None]:
        """While it lasts, channels that are opened now are closed 1 to 3 s after a delivery that is not settled."""
        self._evaluate("application:set_env(rabbit, channel_tick_interval, 1000)")
        self._evaluate("application:set_env(rabbit, consumer_timeout, 2000)")
        try:
            yield
        finally:
            self._evaluate("application:set_env(rabbit, channel_tick_interval, 60000)")
            self._evaluate("application:set_env(rabbit, consumer_timeout, 1800000)")

    def _evaluate(self, expression: str) -> None:
        status, output = self._container.exec_run(["rabbitmqctl", "eval", f"{expression}."])
        if status:
            raise RuntimeError(f"{self.name} refused {expression}: {output.decode(errors='replace')}")


@contextmanager
def _quiet() -> Iterator[None]:
    """A refused connection is what we poll for, and pika would log each as an error with its traceback."""
    logger = logging.getLogger("pika")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
