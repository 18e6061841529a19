"""Retries on RabbitMQ: wait queues deleted while in use, and a process killed between a copy and its original's ack."""

from __future__ import annotations

import signal
import subprocess
import sys

import pika
import pytest

from messaging.driver import Receiver
from messaging.errors import DestinationNotFound, MessagingError
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Queue, Source
from messaging_rabbitmq import RabbitMQDriver, RabbitMQOptions

from .helpers import eventually, message, publish, take


def channel(options: RabbitMQOptions) -> pika.adapters.blocking_connection.BlockingChannel:
    host, port = options.hosts[0]
    credentials = pika.PlainCredentials(options.username, options.password)
    return pika.BlockingConnection(pika.ConnectionParameters(host, port or 5672, credentials=credentials)).channel()


def delete(options: RabbitMQOptions, name: str) -> int:
    """Deletes a queue as another program would. Returns how many messages went with it."""
    with channel(options).connection as connection:
        count: int = connection.channel().queue_delete(name).method.message_count
    return count


def fill(driver: RabbitMQDriver, queue: Queue, count: int) -> list[str]:
    messages = [message(b"%d" % number) for number in range(count)]
    assert not any(publish(driver.sender(ProducerOptions()), queue, *messages))
    return [each.id for each in messages]


def nothing_left(receiver: Receiver) -> None:
    receiver.flush(5)
    assert receiver.receive(1, 0.5) == []
    assert receiver.lag() == 0


def test_deleting_a_wait_queue_loses_what_is_in_it_and_nothing_else(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    ids = fill(driver, queue, 6)
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    deliveries = take(receiver, 6)
    receiver.nack(deliveries[:2], 1000.0)  # these are gone with their queue
    receiver.nack(deliveries[2:4], 1.0)
    receiver.flush(5)
    assert delete(options, f"{queue.name}--retry--1000000") == 2
    receiver.nack([deliveries[4]], 0.5)
    again = take(receiver, 3)
    assert {d.id for d in again} == {*ids[2:5]}
    assert {d.attempt for d in again} == {2}
    receiver.ack([*again, deliveries[5]])
    nothing_left(receiver)


def test_nacks_before_and_after_their_wait_queue_is_deleted(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    ids = fill(driver, queue, 60)
    receiver = driver.receiver(Source(queue), ConsumerOptions(prefetch=60))
    deliveries = take(receiver, 60)
    kept: set[str] = set()
    for round_ in range(3):
        # Each time another queue: one that is deleted as soon as it is made takes RabbitMQ 4.0.5 down with it.
        delay, mine = 1.5 + round_ / 10, deliveries[20 * round_ : 20 * round_ + 20]
        receiver.nack(mine[:10], delay)
        # RabbitMQ confirms what is on its way into a queue that is being deleted, and loses it uncounted.
        receiver.flush(10)
        assert delete(options, f"{queue.name}--retry--{round(delay * 1000)}") == 10
        receiver.nack(mine[10:], delay)
        kept |= {*ids[20 * round_ + 10 : 20 * round_ + 20]}
    receiver.flush(10)
    again = take(receiver, 30, 20)
    assert {d.id for d in again} == kept
    receiver.ack(again)
    nothing_left(receiver)


def test_deleting_a_delay_queue_loses_what_is_in_it_and_nothing_else(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    sender = driver.sender(ProducerOptions())
    lost, kept, later = message(), message(), message()
    assert publish(sender, queue, lost, delay=1000.0) == [None]
    assert publish(sender, queue, kept, delay=1.0) == [None]
    assert delete(options, f"{queue.name}--delay--1000000") == 1
    assert publish(sender, queue, later, delay=1000.0) == [None]
    assert delete(options, f"{queue.name}--delay--1000000") == 1, "it was not made again"
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    (delivery,) = take(receiver, 1)
    assert delivery.id == kept.id
    delivery.ack()
    nothing_left(receiver)


def test_a_delayed_publish_to_a_queue_that_is_gone_says_so(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    sender = driver.sender(ProducerOptions())
    delete(options, queue.name)
    (error,) = publish(sender, queue, message(), delay=1.0)
    assert isinstance(error, DestinationNotFound)


KILLED = """
import os, signal, sys, time
import messaging
from messaging_rabbitmq.receiver import RabbitMQReceiver

def die(self, delivery):
    os.kill(os.getpid(), signal.SIGKILL)

RabbitMQReceiver.settled_copy = die
url, name, how = sys.argv[1:]
with messaging.connect(url) as broker, broker.subscribe(name) as consumer:
    (delivery,) = consumer.receive(1, 30)
    delivery.nack(0.3) if how == "nack" else delivery.reject("no")
    time.sleep(60)
"""
"""Dies when the copy is confirmed and the original is not acked: the driver's own step in between."""


def kill_in_between(url: str, queue: Queue, how: str) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, url, queue.name, how], timeout=90, check=False)
    assert process.returncode == -signal.SIGKILL


def test_killed_between_the_copy_and_the_ack_of_a_nack_it_comes_twice(
    driver: RabbitMQDriver, queue: Queue, url: str
) -> None:
    (id_,) = fill(driver, queue, 1)
    kill_in_between(url, queue, "nack")
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    both = take(receiver, 2)
    assert [d.id for d in both] == [id_, id_]
    # The copy is back after 0.3 s; a broker that has not noticed the death by then sends it there first, which counts.
    assert sorted(d.attempt for d in both) in ([2, 2], [2, 3])
    receiver.ack(both)
    nothing_left(receiver)


def test_killed_between_the_copy_and_the_ack_of_a_reject_it_is_in_both_queues(
    driver: RabbitMQDriver, queue: Queue, url: str
) -> None:
    (id_,) = fill(driver, queue, 1)
    kill_in_between(url, queue, "reject")
    parked = Source(queue).dead_letter
    assert parked is not None
    eventually(lambda: (driver.depth(Source(queue)), driver.depth(Source(parked))) == (1, 1))
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    (again,) = take(receiver, 1)
    assert (again.id, again.attempt) == (id_, 2)
    again.ack()
    nothing_left(receiver)


def test_a_nack_whose_copy_cannot_be_made_says_so_and_keeps_the_original(
    driver: RabbitMQDriver, queue: Queue, options: RabbitMQOptions
) -> None:
    (id_,) = fill(driver, queue, 1)
    wait = f"{queue.name}--retry--700"
    with channel(options).connection as connection:
        # Somebody made it with other arguments: RabbitMQ refuses ours.
        connection.channel().queue_declare(wait, durable=True, arguments={"x-queue-type": "classic"})
    receiver = driver.receiver(Source(queue), ConsumerOptions())
    take(receiver, 1)[0].nack(0.7)
    with pytest.raises(MessagingError, match=r"could not be settled and is delivered again.*700"):
        take(receiver, 1)
    (again,) = take(receiver, 1)
    assert (again.id, again.attempt) == (id_, 2)
    again.ack()
    nothing_left(receiver)
    delete(options, wait)
