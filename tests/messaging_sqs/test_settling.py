"""Acks, nacks, rejects, leases and close, as facts on the broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Thread

import pytest

from messaging import Queue
from messaging.broker import Broker
from messaging.consumer import Consumer
from messaging.errors import (
    BrokerUnavailable,
    Closed,
    DestinationNotFound,
    LeaseLost,
    SettleFailed,
    UnsupportedCapability,
)
from messaging_contract.gate import Gate

from .test_messages import take

Connect = Callable[..., Broker]

# The strictest about leases.
pytestmark = pytest.mark.only("sqs:elasticmq", "sqs:moto-process")


def until(condition: Callable[[], bool], within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def nothing_for(consumer: Consumer, seconds: float) -> None:
    assert consumer.receive(10, seconds) == []


def test_acked_messages_are_gone(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish_many(name, [{"n": n} for n in range(37)])
    with broker.subscribe(name) as consumer:
        for delivery in take(consumer, 37):
            delivery.ack()
            delivery.ack()
        consumer.flush()
        assert until(lambda: consumer.lag() == 0)
    with pytest.raises(Closed):
        consumer.receive()


def test_nack_comes_back_with_the_next_attempt(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"x")
    with broker.subscribe(name) as consumer:
        for attempt in (1, 2, 3):
            (delivery,) = take(consumer, 1, 5)
            assert delivery.attempt == attempt
            delivery.nack()
        take(consumer, 1)[0].ack()


def test_nack_delay_is_never_early(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"x")
    # A short lease, so that a heartbeat would be due within the delay.
    with broker.subscribe(name, lease=3) as consumer:
        (delivery,) = take(consumer, 1)
        start = time.monotonic()
        delivery.nack(1.5)
        (again,) = take(consumer, 1)
        assert time.monotonic() - start >= 1.5
        assert again.attempt == 2
        again.ack()
        with pytest.raises(UnsupportedCapability):
            consumer.ack([again]) or consumer._receiver.nack([again], 43201)


def test_a_dead_letter_is_itself_and_says_why(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"\x00bad", key="k", type="t", headers={"h": "v"}, id="the-id")
    with broker.subscribe(name) as consumer:
        take(consumer, 1)[0].reject("broken")
        consumer.flush()
        assert until(lambda: consumer.lag() == 0)
    with broker.dead_letters(name) as dead:
        (delivery,) = take(dead, 1)
        assert (delivery.body, delivery.key, delivery.type, delivery.id) == (b"\x00bad", "k", "t", "the-id")
        about = dict(delivery.headers)
        assert float(about.pop("dead-letter-time")) > 0
        assert about == {
            "h": "v",
            "dead-letter-source": name,
            "dead-letter-reason": "broken",
            "dead-letter-attempts": "1",
        }
        delivery.ack()


def test_reject_without_a_dead_letter_queue(connect: Connect, name: str, caplog: pytest.LogCaptureFixture) -> None:
    broker = connect(Queue(name, dead_letter=False))
    broker.publish(name, b"x")
    with broker.subscribe(name) as consumer, caplog.at_level(logging.WARNING):
        take(consumer, 1)[0].reject("no use")
        consumer.flush()
        assert until(lambda: consumer.lag() == 0)
    assert "discarded" in caplog.text


def test_a_reject_that_cannot_be_copied_is_told_and_keeps_the_message(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"x")
    with broker.subscribe(name, lease=2) as consumer:
        (delivery,) = take(consumer, 1)
        broker._driver.delete(broker.topology.__class__(Queue(f"{name}--dlq", dead_letter=False)))
        delivery.reject("broken")
        with pytest.raises(SettleFailed):
            consumer.flush()
        take(consumer, 1)[0].ack()


def test_without_a_heartbeat_a_lease_lapses_and_its_ack_is_refused(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"x")
    with broker.subscribe(name, lease=2, heartbeat=False) as consumer:
        (first,) = take(consumer, 1)
        (second,) = take(consumer, 1)
        assert second.attempt == 2
        with pytest.raises(LeaseLost):
            first.extend(10)
        first.ack()
        with pytest.raises(LeaseLost):
            consumer.flush()
        second.nack()
        (third,) = take(consumer, 1)
        assert third.attempt == 3
        third.ack()
        consumer.flush()
        assert until(lambda: consumer.lag() == 0)


def test_the_heartbeat_keeps_what_is_held_and_what_is_buffered(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish_many(name, [b"x"] * 12)
    with broker.subscribe(name, lease=2) as holder:
        held = take(holder, 5)
        assert until(lambda: broker.depth(name) == 0)
        with broker.subscribe(name) as other:
            nothing_for(other, 3.0)
        held += take(holder, 7)
        assert {d.attempt for d in held} == {1}
        holder.ack(held)
        holder.flush()
        assert until(lambda: holder.lag() == 0)


def test_extend(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish(name, b"x")
    with broker.subscribe(name, lease=2, heartbeat=False) as consumer:
        (delivery,) = take(consumer, 1)
        delivery.extend(5)
        nothing_for(consumer, 2.5)
        delivery.ack()
        consumer.flush()
        with pytest.raises(UnsupportedCapability):
            delivery.extend(43201)
        with pytest.raises(LeaseLost):
            delivery.extend(1)


def test_prefetch_bounds_what_is_taken(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish_many(name, [b"x"] * 30)
    with broker.subscribe(name, prefetch=7) as consumer:
        held = take(consumer, 7)
        nothing_for(consumer, 1.0)
        assert broker.depth(name) == 23
        held[0].ack()
        take(consumer, 1)


def test_close_gives_everything_back_at_once(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish_many(name, [b"x"] * 25)
    consumer = broker.subscribe(name, lease=600)
    acked = take(consumer, 5)
    consumer.ack(acked)
    take(consumer, 3)
    consumer.close()
    with pytest.raises(Closed):
        consumer._receiver.nack(acked, 0)
    with broker.subscribe(name) as other:
        taken = take(other, 20, 5)
        other.ack(taken)
        other.flush()
        assert until(lambda: other.lag() == 0)


def test_a_message_that_arrives_in_the_last_poll_is_given_back(connect: Connect, name: str) -> None:
    broker = connect(Queue(name), wait_time=2)
    consumer = broker.subscribe(name, lease=600)
    nothing_for(consumer, 0.3)
    broker.publish_many(name, [b"x"] * 5)
    consumer.close()
    with broker.subscribe(name) as other:
        other.ack(take(other, 5, 5))


def test_pause_holds_what_a_poll_under_way_brings(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    with broker.subscribe(name) as consumer:
        nothing_for(consumer, 0.2)
        consumer.pause()
        broker.publish_many(name, [b"x"] * 3)
        nothing_for(consumer, 2.0)
        consumer.resume()
        consumer.ack(take(consumer, 3))


def test_depth_lag_and_purge(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish_many(name, [b"x"] * 10)
    assert until(lambda: broker.depth(name) == 10)
    with broker.subscribe(name, prefetch=4) as consumer:
        take(consumer, 4)
        assert until(lambda: (broker.depth(name), consumer.lag()) == (6, 10))
    assert until(lambda: broker.depth(name) == 10)
    broker.purge(name)
    assert until(lambda: broker.depth(name) == 0)


def test_a_queue_deleted_under_a_consumer_is_told(connect: Connect, name: str) -> None:
    # ElasticMQ never answers a poll whose queue is deleted under it: the read timeout ends that.
    broker = connect(Queue(name), read_timeout=3)
    with broker.subscribe(name) as consumer:
        nothing_for(consumer, 0.1)
        broker._driver.delete(broker.topology)
        with pytest.raises(DestinationNotFound):
            take(consumer, 1, 20)


def test_an_ack_that_the_broker_refuses_is_told_and_its_neighbours_are_carried_out(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    broker.publish_many(name, [b"x"] * 4)
    sqs = broker.native
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    with broker.subscribe(name, lease=600, prefetch=4) as holder:
        held = take(holder, 4)
        # Behind the adapter's back two of them go to somebody else: their receipts are stale.
        stale = [delivery.native["ReceiptHandle"] for delivery in held[:2]]
        for receipt in stale:
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)
        with broker.subscribe(name, lease=600) as other:
            taken = take(other, 2)
            answer = sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": stale[0]}])
            if not answer.get("Failed"):
                pytest.skip("this endpoint takes stale receipts")
            holder.ack(held[1:])
            with pytest.raises(SettleFailed, match="delivered again"):
                holder.flush()
            assert until(lambda: other.lag() == 2)
            other.ack(taken)
            other.flush()
            assert until(lambda: other.lag() == 0)


def test_a_nack_waits_for_an_extension_under_way(connect: Connect, gated: str, name: str, gate: Gate) -> None:
    connect(Queue(name))
    broker = connect(Queue(name), target=gated)
    broker.publish(name, b"x")
    with broker.subscribe(name, lease=30, prefetch=1) as consumer:
        (delivery,) = take(consumer, 1)
        consumer.pause()
        release = gate.hold("ChangeMessageVisibilityBatch")
        extending = Thread(target=delivery.extend, args=(600,))
        extending.start()
        assert gate.holding.wait(10)
        delivery.nack()
        with pytest.raises(BrokerUnavailable):
            consumer.flush(0.3)
        release.set()
        extending.join()
        consumer.flush()
        consumer.resume()
        (again,) = take(consumer, 1)
        assert again.attempt == 2
        again.ack()
