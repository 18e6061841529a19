"""Order per key, whatever becomes of the deliveries."""

import random
from collections import defaultdict
from itertools import pairwise
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import messaging
from messaging import Broker, Closed, Message, Queue
from messaging_memory import ManualClock, MemoryServer

LANE = Queue("lane", ordered=True)


def publish(broker: Broker, keys: str) -> None:
    broker.publish_many("lane", [Message.of(n, key=key) for n, key in enumerate(keys)])


def values(deliveries: list[Any]) -> list[Any]:
    return [delivery.value for delivery in deliveries]


def test_one_unsettled_message_a_key(broker: Broker) -> None:
    publish(broker, "aabba")
    with broker.subscribe("lane") as consumer:
        a0, b2 = consumer.receive(timeout=0)
        assert values([a0, b2]) == [0, 2]
        assert consumer.receive(timeout=0) == []
        a0.ack()
        (a1,) = consumer.receive(timeout=0)
        assert a1.value == 1
        b2.reject("no")
        assert values(consumer.receive(timeout=0)) == [3]
        a1.ack()
        assert values(consumer.receive(timeout=0)) == [4]
        assert broker.dead_letter_depth("lane") == 1


def test_a_nack_stays_at_the_head_while_other_keys_go_on(clock: ManualClock) -> None:
    server = MemoryServer(clock)
    with messaging.connect("memory://", server=server, topology=LANE) as broker:
        publish(broker, "aab")
        with broker.subscribe("lane") as consumer:
            a0, b2 = consumer.receive(timeout=0)
            a0.headers["seen"] = "yes"  # type: ignore[index]
            a0.nack()
            (again,) = consumer.receive(timeout=0)
            assert (again.value, again.attempt, again.id) == (0, 2, a0.id)
            assert dict(again.headers) == {}
            b2.ack()
            a0.ack()  # settled already: nothing happens
            assert consumer.receive(timeout=0) == []
            again.ack()
            (a1,) = consumer.receive(timeout=0)
            assert (a1.value, a1.attempt) == (1, 1)


def test_close_gives_back_in_order(broker: Broker) -> None:
    publish(broker, "aabba")
    with broker.subscribe("lane") as consumer:
        consumer.receive(timeout=0)[0].nack()
    with broker.subscribe("lane") as consumer:
        seen = defaultdict(list)
        while deliveries := consumer.receive(timeout=0):
            for delivery in deliveries:
                seen[delivery.key].append(delivery.value)
                delivery.ack()
    assert seen == {"a": [0, 1, 4], "b": [2, 3]}


def test_settling_after_close(broker: Broker) -> None:
    publish(broker, "a")
    consumer = broker.subscribe("lane")
    (delivery,) = consumer.receive(timeout=0)
    consumer.close()
    for settle in (delivery.ack, delivery.nack, delivery.reject):
        with pytest.raises(Closed):
            settle()
    assert not delivery.settled
    assert broker.depth("lane") == 1


def test_a_key_is_at_one_consumer_at_a_time(broker: Broker) -> None:
    publish(broker, "aab")
    with broker.subscribe("lane") as one:
        a0 = one.receive(1, timeout=0)[0]
        assert a0.value == 0
        with broker.subscribe("lane") as two:
            assert two.receive(timeout=0) == []  # one has taken both keys, up to its prefetch
        with broker.subscribe("lane", prefetch=1) as two:
            assert two.receive(timeout=0) == []
    with broker.subscribe("lane", prefetch=1) as one, broker.subscribe("lane", prefetch=1) as two:
        assert values(one.receive(timeout=0)) == [0]
        assert values(two.receive(timeout=0)) == [2]


def test_replay_starts_the_lanes_afresh(server: MemoryServer) -> None:
    topic = messaging.Topic("t", "g", ordered=True)
    with messaging.connect("memory://", server=server, topology=topic) as broker:
        broker.publish_many("t", [Message.of(n, key="k") for n in range(3)])
        with broker.subscribe("t", "g") as consumer:
            (stale,) = consumer.receive(timeout=0)
            consumer.replay("beginning")
            (fresh,) = consumer.receive(timeout=0)
            stale.ack()
            assert (fresh.value, consumer.receive(timeout=0)) == (0, [])
            fresh.ack()
            assert values(consumer.receive(timeout=0)) == [1]
            assert consumer.lag() == 2


STEPS = st.lists(
    st.tuples(st.sampled_from(["publish", "receive", "ack", "ack", "nack", "reopen"]), st.integers(0, 10**6)),
    max_size=60,
)


@settings(max_examples=150)
@given(STEPS)
def test_order_holds_whatever_is_done(steps: list[tuple[str, int]]) -> None:
    """Two consumers, random settlements and reopenings: the acks of each key happen in publish order, each once."""
    with messaging.connect("memory://", topology=LANE) as broker:
        consumers = [broker.subscribe("lane", prefetch=3) for _ in range(2)]
        held: list[list[Any]] = [[], []]
        published = 0
        acked: dict[str, list[int]] = defaultdict(list)

        def receive(at: int) -> None:
            for delivery in consumers[at].receive(2, timeout=0):
                assert all(delivery.key != d.key for d in held[0] + held[1]), "two unsettled deliveries of one key"
                held[at].append(delivery)

        for what, number in steps:
            at, key = number % 2, "abc"[number % 3]
            if what == "publish":
                broker.publish("lane", published, key=key)
                published += 1
            elif what == "receive":
                receive(at)
            elif what == "reopen":
                consumers[at].close()
                held[at].clear()
                consumers[at] = broker.subscribe("lane", prefetch=3)
            elif held[at]:
                delivery = held[at].pop(number % len(held[at]))
                if what == "ack":
                    delivery.ack()
                    acked[delivery.key].append(delivery.value)
                else:
                    delivery.nack()
        for _ in range(3 * published + 2):
            for at in (0, 1):
                receive(at)
                for delivery in held[at]:
                    delivery.ack()
                    acked[delivery.key].append(delivery.value)
                held[at].clear()
        assert sum(map(len, acked.values())) == published
        assert all(one < two for lane in acked.values() for one, two in pairwise(lane))
        assert broker.depth("lane") == 0


@pytest.mark.parametrize("round", range(20))
def test_threads_that_race_to_settle(round: int) -> None:
    """Each delivery is settled by two threads at once, differently: every message is acked in the end, in order."""
    with messaging.connect("memory://", topology=LANE) as broker:
        publish(broker, "abcd" * 10)
        done: dict[str, list[int]] = defaultdict(list)
        with broker.subscribe("lane", prefetch=16) as consumer:

            def other(batch: list[Any]) -> None:
                for delivery in batch:
                    random.choice([delivery.ack, delivery.nack])()

            for _ in range(2000):
                batch = consumer.receive(timeout=0)
                if not batch and not consumer.lag():
                    break
                for delivery in batch:
                    if delivery.attempt == 1:
                        done[delivery.key].append(delivery.value)
                thread = Thread(target=other, args=(batch,))
                thread.start()
                for delivery in batch:
                    delivery.ack()
                thread.join()
            assert consumer.lag() == 0
        assert done == {key: list(range(n, 40, 4)) for n, key in enumerate("abcd")}
