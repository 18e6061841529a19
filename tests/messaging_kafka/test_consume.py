"""Settling, as the committed offset and the content of topics tell."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from messaging import Broker, Message, Queue, Subscription
from messaging.errors import Closed, SettleFailed

from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]


def test_the_committed_offset_never_passes_a_gap(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b"%d" % n for n in range(12)])
    with broker.subscribe(name, "g") as consumer:
        left = dict(enumerate(take(consumer, 12)))
        order = list(left)
        random.Random(7).shuffle(order)
        for offset in order:
            left.pop(offset).ack()
            consumer.flush()
            assert cluster.committed(f"{name}--g", name) == {0: min(left, default=12)}


def test_what_is_unsettled_at_close_is_delivered_again_and_nothing_else(
    connect: Connect, cluster: Cluster, name: str
) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b"%d" % n for n in range(6)])
    consumer = broker.subscribe(name, "g")
    held = take(consumer, 6)
    for index in (0, 1, 3):
        held[index].ack()
    consumer.close()
    assert cluster.committed(f"{name}--g", name) == {0: 2}
    with pytest.raises(Closed):
        held[2].ack()
    assert broker.depth(name, "g") == 3, "what is settled above the position is not to come"
    with broker.subscribe(name, "g") as again:
        two, _, five = take(again, 3)
        assert [two.body, five.body] == [b"2", b"5"]
        five.ack()
    assert cluster.committed(f"{name}--g", name) == {0: 2}
    with broker.subscribe(name, "g") as last:
        assert [d.body for d in take(last, 2)] == [b"2", b"4"]


def test_a_nacked_message_comes_back_and_the_rest_goes_on(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b"%d" % n for n in range(5)])
    with broker.subscribe(name, "g") as consumer:
        first, *others = take(consumer, 5)
        first.nack(0.3)
        consumer.ack(others)
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 0}
        (again,) = take(consumer, 1)
        assert (again.id, again.attempt) == (first.id, 2)
        again.ack()
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 5}


def test_a_nack_holds_its_key_and_no_other_of_the_partition(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name, ordered=True))
    broker.publish_many(name, [Message(b"%s%d" % (key, n), key.decode()) for n in range(3) for key in (b"a", b"b")])
    handled: list[bytes] = []
    with broker.subscribe(name, "g") as consumer:
        while len(handled) < 3:
            (delivery,) = take(consumer, 1)
            if delivery.key == "a":
                delivery.nack(1.0)
                continue
            handled.append(delivery.body)
            delivery.ack()
        assert handled == [b"b0", b"b1", b"b2"]
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 0}
        attempts = []
        while len(handled) < 6:
            (delivery,) = take(consumer, 1)
            handled.append(delivery.body)
            attempts.append(delivery.attempt)
            delivery.ack()
        assert handled[3:] == [b"a0", b"a1", b"a2"]
        assert (attempts[0] > 1, attempts[1:]) == (True, [1, 1])
        consumer.flush()
    assert cluster.committed(f"{name}--g", name) == {0: 6}


def test_a_rejected_message_is_in_the_dead_letter_topic(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    id_ = broker.publish(name, b"bad", key="k", type="t", headers={"h": "v"})
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].reject("no good")
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 1}
        (dead,) = cluster.records(f"{name}--g--dlq")
    headers = dict(dead.headers())
    assert (dead.key(), dead.value()) == (b"k", b"bad")
    assert (headers["x-messaging-id"], headers["h"]) == (id_.encode(), b"v")
    assert headers["dead-letter-reason"] == b"no good"
    assert headers["dead-letter-source"] == f"{name}--g".encode()


def test_a_dead_letter_keeps_the_bytes_and_is_as_young_as_itself(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    old = 1_700_000_000_123
    cluster.configure(name, retention_ms="-1")
    cluster.produce(name, None, key=b"\xff\x00", headers=[("h", b"\xfe"), ("h", b"2")], timestamp=old)
    before = time.time()
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].reject("no good")
        consumer.flush()
    (dead,) = cluster.records(f"{name}--g--dlq")
    assert (dead.key(), dead.value()) == (b"\xff\x00", None)
    assert [value for header, value in dead.headers() if header == "h"] == [b"\xfe", b"2"]
    assert dead.timestamp()[1] >= before * 1000 - 1000, "Kafka would delete it by the age of what it is a copy of"
    with broker.dead_letters(name, "g") as graveyard:
        (delivery,) = take(graveyard, 1)
        assert delivery.timestamp == old / 1000
        delivery.ack()


def test_what_is_older_than_its_topic_keeps_is_kept(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    before, old = time.time(), time.time() - 30 * 86_400
    for timestamp in (old, before - 60):
        broker.publish(name, b"", timestamp=timestamp)
    kept, as_given = cluster.records(name)
    assert kept.timestamp()[1] >= before * 1000 - 1000, "Kafka would delete it at once"
    assert as_given.timestamp()[1] == round((before - 60) * 1000)
    with broker.subscribe(name, "g") as consumer:
        (first, _second) = taken = take(consumer, 2)
        assert first.timestamp == round(old * 1000) / 1000
        consumer.ack(taken)


def test_what_waits_for_a_delay_takes_no_room_from_others(connect: Connect, name: str) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b""] * 1300)
    broker.publish(name, b"last")
    with broker.subscribe(name, "g", prefetch=50) as consumer:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for delivery in consumer.receive(50, 0.5):
                if delivery.body == b"last":
                    return
                delivery.nack(delay=600)
    raise AssertionError("messages that wait for their retry keep another from being delivered")


def test_a_message_whose_dead_letter_is_refused_stays(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    broker.publish(name, b"x" * 2000)
    with broker.subscribe(name, "g") as consumer:
        (delivery,) = take(consumer, 1)
        cluster.configure(f"{name}--g--dlq", max_message_bytes="500")
        delivery.reject("no good")
        with pytest.raises(SettleFailed, match="stays"):
            take(consumer, 1)
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 0}
        assert cluster.records(f"{name}--g--dlq") == []
        (again,) = take(consumer, 1)
        assert again.id == delivery.id
        cluster.configure(f"{name}--g--dlq", max_message_bytes="100000")
        again.reject("still no good")
        consumer.flush()
        deadline = time.monotonic() + 20
        while cluster.committed(f"{name}--g", name) != {0: 1}:  # the broker takes a moment to apply the setting
            assert time.monotonic() < deadline
            with pytest.raises(SettleFailed, match="stays"):
                take(consumer, 1)
            (again,) = take(consumer, 1)
            again.reject("still no good")
            consumer.flush()
    assert len(cluster.records(f"{name}--g--dlq")) == 1


def test_reject_without_a_dead_letter_topic_settles(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name, Subscription("g", dead_letter=False)))
    broker.publish(name, b"bad")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].reject()
        consumer.flush()
    assert cluster.committed(f"{name}--g", name) == {0: 1}
    assert f"{name}--g--dlq" not in cluster.topics()


def test_what_a_pattern_leaves_out_is_committed_over(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name, Subscription("g", "order.*")))
    for type_ in ("other", "order.a", "order.a.b", "order.b", "", "other"):
        broker.publish(name, b"x", type=type_)
    with broker.subscribe(name, "g") as consumer:
        first, second = take(consumer, 2)
        assert (first.type, second.type) == ("order.a", "order.b")
        second.ack()
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 1}
        first.ack()
        consumer.flush()
        assert consumer.lag() == 0
    assert cluster.committed(f"{name}--g", name) == {0: 6}


def test_records_of_another_program_arrive_as_they_are(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    cluster.produce(name, b"\xff", None, key=b"\xfe", headers=[("h", b"\xfd"), ("h", b"2"), ("n", None)])
    with broker.subscribe(name, "g") as consumer:
        full, tombstone = take(consumer, 2)
        assert (full.body, full.key, full.headers) == (b"\xff", "\\xfe", {"h": "2", "n": ""})
        assert (tombstone.body, tombstone.id, tombstone.native.value()) == (b"", f"{name}-0-1", None)
        consumer.ack([full, tombstone])
        consumer.flush()
    assert cluster.committed(f"{name}--g", name) == {0: 2}


def test_prefetch_bounds_what_is_unsettled(connect: Connect, name: str) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b"x"] * 20)
    with broker.subscribe(name, "g", prefetch=4) as consumer:
        held = take(consumer, 4)
        assert consumer.receive(10, 0.3) == []
        held[2].ack()
        take(consumer, 1)
        assert consumer.receive(10, 0.3) == []


def test_pause_hands_nothing_out_and_keeps_the_group(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(one_partition(name))
    broker.publish(name, b"1")
    with broker.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].ack()
        consumer.pause()
        broker.publish(name, b"2")
        assert consumer.receive(1, 0.5) == []
        assert len(cluster.group(f"{name}--g").members) == 1
        consumer.resume()
        assert take(consumer, 1)[0].body == b"2"


def test_keys_are_placed_as_java_places_them(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(Queue(name, native={"kafka": {"partitions": 7}}))
    # Values of murmur2 from the tests of Kafka's own client (UtilsTest.testMurmur2).
    known = {
        "21": -973932308,
        "foobar": -790332482,
        "a-little-bit-long-string": -985981536,
        "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        "abc": 479470107,
    }
    broker.publish_many(name, [Message(b"", key) for key in known])
    placed = {record.key().decode(): record.partition() for record in cluster.records(name)}
    assert placed == {key: (value & 0x7FFFFFFF) % 7 for key, value in known.items()}
