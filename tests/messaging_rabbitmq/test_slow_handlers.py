"""A handler that takes longer than the broker waits for a heartbeat: the connection stands."""

from __future__ import annotations

from threading import Event

from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Queue, Source
from messaging_contract.faults import TcpProxy
from messaging_rabbitmq import RabbitMQOptions

from .helpers import message, opened, publish, take

HEARTBEAT = 1
"""Seconds. The broker ends a connection that was silent for two of them."""


def test_messages_held_for_longer_than_the_heartbeat_cost_no_connection(
    options: RabbitMQOptions, queue: Queue, proxy: TcpProxy
) -> None:
    with opened(options, heartbeat=HEARTBEAT, hosts=(("127.0.0.1", proxy.port),)) as driver:
        sender = driver.sender(ProducerOptions())
        assert not any(publish(sender, queue, *(message(b"%d" % n) for n in range(4))))
        receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=2))
        first, second = take(receiver, 2)
        link = driver._consuming
        assert link is not None
        connections = (link.connection, driver._publishing.connection)
        assert proxy.connections == 2

        Event().wait(4 * HEARTBEAT)  # the handler; both connections have nothing to carry but heartbeats

        assert (link.connection, driver._publishing.connection) == connections
        assert proxy.connections == 2
        first.ack()
        receiver.flush(5)
        assert receiver.lag() == 3
        # The broker counts every way back, also that of a lost connection: there was this one.
        second.nack()
        attempts = {}
        for _ in range(3):
            [delivery] = take(receiver, 1)
            attempts[delivery.body] = delivery.attempt
            delivery.ack()
        assert attempts == {b"1": 2, b"2": 1, b"3": 1}
        receiver.flush(5)
        assert receiver.lag() == 0
        assert link.connection is connections[0]
