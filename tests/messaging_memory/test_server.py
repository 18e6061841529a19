import logging
import random
import time
from collections import Counter
from threading import Thread

import pytest

import messaging
from messaging import (
    ConfigurationError,
    DestinationNotFound,
    PublishFailed,
    Queue,
    SettleFailed,
    Subscription,
    Topic,
    TopologyError,
    Unroutable,
    UnsupportedCapability,
)
from messaging_memory import ManualClock, MemoryServer

JOBS = Queue("jobs")
ORDERS = Topic("orders", "a", Subscription("b", "order.*"))


def values(deliveries) -> list:
    return [delivery.value for delivery in deliveries]


def test_brokers_share_nothing_unless_told(open_broker) -> None:
    shared, same = open_broker(JOBS), open_broker(JOBS)
    own = messaging.connect("memory://", topology=JOBS)
    shared.publish("jobs", 1)
    assert (same.depth("jobs"), own.depth("jobs")) == (1, 0)
    own.close()


def test_a_copy_for_each_group_whose_pattern_fits(open_broker) -> None:
    broker = open_broker(ORDERS)
    broker.publish("orders", 1, type="order.placed")
    broker.publish("orders", 2, type="other")
    broker.publish("orders", 3)
    with broker.subscribe("orders", "a") as a, broker.subscribe("orders", "b") as b:
        assert values(a.receive(timeout=0)) == [1, 2, 3]
        assert values(b.receive(timeout=0)) == [1]


def test_a_subscription_begins_when_it_is_declared(open_broker) -> None:
    broker = open_broker(Topic("orders"))
    broker.publish("orders", 1)
    with broker.subscribe("orders", "late") as late:
        assert late.receive(timeout=0) == []
        broker.publish("orders", 2)
        assert values(late.receive(timeout=0)) == [2]


def test_what_one_group_does_to_headers_is_not_seen_by_another(open_broker) -> None:
    broker = open_broker(Topic("orders", "a", "b"))
    headers = {"x": "1"}
    broker.publish("orders", 1, headers=headers)
    headers["x"] = "2"
    with broker.subscribe("orders", "a") as a, broker.subscribe("orders", "b") as b:
        (one,) = a.receive(timeout=0)
        one.headers["x"] = "3"
        one.nack()
        assert [d.headers for d in a.receive(timeout=0) + b.receive(timeout=0)] == [{"x": "1"}, {"x": "1"}]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Topic("t", Subscription("g", "a.*")), Topic("t", Subscription("g", "b.*"))),
        (Topic("t", "g"), Topic("t", Subscription("g", "b.*"))),
        (Topic("t"), Topic("t", ordered=True)),
        (Queue("t"), Queue("t", ordered=True)),
        (Queue("t"), Topic("t")),
        (Topic("t"), Queue("t")),
    ],
)
def test_what_is_there_and_differs_is_loud(open_broker, first, then) -> None:
    """Declared by two programs, which do not know of each other."""
    one = open_broker(first)
    with pytest.raises(TopologyError, match=r"exists with|on this broker"):
        open_broker(then)
    open_broker(first)
    if isinstance(first, Topic) and first.subscriptions:
        one.publish("t", 1, type="a.x")
        assert one.depth("t", "g") == 1, "the pattern is still the first one"
        one.delete(first)
        open_broker(then)


def test_create_false_only_looks(open_broker) -> None:
    for wanted in (JOBS, Topic("orders")):
        with pytest.raises(DestinationNotFound, match="create=False"):
            open_broker(wanted, create=False)
    open_broker(JOBS, Topic("orders", "a"))
    broker = open_broker(JOBS, Topic("orders", "a"), create=False)
    for wanted in (lambda: broker.subscribe("orders", "b"), lambda: broker.publish(Queue("other"), 1)):
        with pytest.raises(DestinationNotFound):
            wanted()
    assert broker.topology.get("other") is None


def test_delete(open_broker) -> None:
    broker = open_broker(JOBS, ORDERS)
    broker.publish("jobs", 1)
    with broker.subscribe("jobs") as consumer:
        (stale,) = consumer.receive(timeout=0)
        stale.nack()
        (stale,) = consumer.receive(timeout=0)
        broker.delete([JOBS, ORDERS])
        with pytest.raises(DestinationNotFound):
            consumer.receive(timeout=0)
        with pytest.raises(DestinationNotFound):
            open_broker(create=False).publish(JOBS, 1)
        broker.delete(JOBS)
        broker.declare(JOBS)
        broker.publish("jobs", 2)
        (fresh,) = consumer.receive(timeout=0)
        stale.ack()
        stale.nack()
        assert (fresh.value, consumer.lag()) == (2, 1)
    assert broker.depth("jobs") == 1, "settling the stale one did not forget the fresh one"


def test_delays_and_ttl(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    broker.publish("jobs", "late", delay=10)
    broker.publish("jobs", "soon", delay=1)
    broker.publish("jobs", "gone", ttl=0.001, timestamp=time.time() - 1)
    with broker.subscribe("jobs") as consumer:
        assert consumer.receive(timeout=0) == []
        assert broker.depth("jobs") == 2, "the expired one is done with"
        clock.advance(1)
        assert values(consumer.receive(timeout=0)) == ["soon"]
        clock.advance(9)
        (late,) = consumer.receive(timeout=0)
        late.nack(delay=5)
        clock.advance(4.9)
        assert consumer.receive(timeout=0) == []
        clock.advance(0.1)
        (again,) = consumer.receive(timeout=0)
        assert (again.value, again.attempt) == ("late", 2)


def test_a_blocked_receive_sees_the_clock_move(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    with broker.subscribe("jobs") as consumer:
        for n in range(20):
            broker.publish("jobs", n, delay=60)
            got: list = []
            thread = Thread(target=lambda got=got: got.extend(consumer.receive(timeout=10)))
            thread.start()
            clock.advance(60)
            thread.join(10)
            assert values(got) == [n]
            got[0].ack()


def test_a_short_real_delay_is_not_slept_through() -> None:
    with messaging.connect("memory://", topology=JOBS) as broker, broker.subscribe("jobs") as consumer:
        started = time.monotonic()
        for n in range(50):
            broker.publish("jobs", n, delay=0.002 * random.random())
            (delivery,) = consumer.receive(timeout=5)
            delivery.ack()
        assert time.monotonic() - started < 50 * 0.4  # a turn of receive is half a second


def test_waiting_at_the_prefetch_mark_does_not_spin(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    broker.publish("jobs", 1)
    broker.publish("jobs", 2, delay=1)
    with broker.subscribe("jobs", prefetch=1) as consumer:
        consumer.receive(timeout=0)
        clock.advance(2)
        used = time.thread_time()
        assert consumer.receive(timeout=0.2) == []
        assert time.thread_time() - used < 0.02


def test_mandatory(open_broker) -> None:
    broker = open_broker(Topic("orders", Subscription("b", "order.*")), Topic("none"))
    broker.publish("none", 1)
    for topic, type_ in (("none", ""), ("orders", "other")):
        with pytest.raises(Unroutable):
            broker.publish(topic, 1, type=type_, mandatory=True)
    broker.publish("orders", 1, type="order.x", mandatory=True)


def test_replay(open_broker) -> None:
    broker = open_broker(Topic("orders", "a", Subscription("b", "order.*")))
    for n in range(8):
        broker.publish("orders", n, timestamp=1000.0 + n, type="order.x" if n % 2 else "")
    with broker.subscribe("orders", "a") as a, broker.subscribe("orders", "b") as b:
        assert values(a.receive(timeout=0)) == list(range(8))
        a.replay("beginning")
        assert values(a.receive(timeout=0)) == list(range(8))
        a.replay(1006.0)
        assert values(a.receive(timeout=0)) == [6, 7]
        a.replay({0: 7})
        assert values(a.receive(timeout=0)) == [7]
        a.replay({0: 100})
        assert a.receive(timeout=0) == []
        assert values(b.receive(timeout=0)) == [1, 3, 5, 7], "another group is left alone"
        b.replay("beginning")
        assert values(b.receive(timeout=0)) == [1, 3, 5, 7]
        for wrong in ({1: 0}, {0: -1}, {0: "x"}):
            with pytest.raises(ConfigurationError):
                a.replay(wrong)
        with pytest.raises(ValueError, match="beginning"):
            a.replay("start")


def test_the_log_keeps_the_last_of_a_topic(clock: ManualClock) -> None:
    server = MemoryServer(clock, retain=3)
    with messaging.connect("memory://", server=server, topology=Topic("t", "g")) as broker:
        broker.publish_many("t", range(10))
        with broker.subscribe("t", "g") as consumer:
            for since, expected in (("beginning", [7, 8, 9]), ({0: 8}, [8, 9]), ({0: 2}, [7, 8, 9])):
                consumer.replay(since)
                assert values(consumer.receive(timeout=0)) == expected


def test_replay_while_others_of_the_group_hold_messages(open_broker) -> None:
    """Their deliveries become stale; settling those must not touch the new ones, which have leases of their own."""
    broker = open_broker(Topic("orders", "a"))
    broker.publish_many("orders", range(4))
    one, two = broker.subscribe("orders", "a"), broker.subscribe("orders", "a")
    stale = one.receive(2, timeout=0) + two.receive(2, timeout=0)
    one.replay("beginning")
    fresh = two.receive(2, timeout=0) + one.receive(2, timeout=0)
    assert sorted(values(fresh)) == [0, 1, 2, 3]
    for delivery in stale:
        delivery.ack()
    assert one.lag() == 4
    one.close()
    two.close()
    assert broker.depth("orders", "a") == 4


def test_reject_without_a_dead_letter_queue_is_told(open_broker, caplog) -> None:
    broker = open_broker(Queue("jobs", dead_letter=False))
    broker.publish("jobs", 1)
    with broker.subscribe("jobs") as consumer, caplog.at_level(logging.WARNING):
        consumer.receive(timeout=0)[0].reject("bad input")
        assert consumer.lag() == 0
    assert "bad input" in caplog.text


def test_reject_never_loses_the_message(open_broker, clock: ManualClock) -> None:
    """The dead-letter queue is full, or gone."""
    server = MemoryServer(clock, capacity=1)
    broker = open_broker(JOBS, server=server)
    with broker.subscribe("jobs") as consumer:
        for value in (1, 2):
            broker.publish("jobs", value)
            (delivery,) = consumer.receive(timeout=0)
            delivery.reject("no")
        with pytest.raises(SettleFailed, match="full"):
            consumer.flush()
        assert consumer.receive(timeout=0) == []
        clock.advance(1)
        (again,) = consumer.receive(timeout=0)
        assert (again.value, again.attempt) == (2, 2)
        broker.purge(Queue("jobs--dlq", dead_letter=False))
        again.reject("no")
        assert (consumer.lag(), broker.dead_letter_depth("jobs")) == (0, 1)
        broker.publish("jobs", 3)
        (delivery,) = consumer.receive(timeout=0)
        broker.delete(Queue("jobs--dlq", dead_letter=False))
        delivery.reject("no")
        with pytest.raises(SettleFailed, match="does not exist"):
            consumer.receive(timeout=0)
        assert consumer.lag() == 1


def test_dead_letters(open_broker) -> None:
    broker = open_broker(JOBS)
    id = broker.publish("jobs", {"n": 1}, key="k", type="t", headers={"h": "v"}, ttl=100)
    with broker.subscribe("jobs") as consumer:
        (delivery,) = consumer.receive(timeout=0)
        delivery.nack()
        (delivery,) = consumer.receive(timeout=0)
        delivery.reject("\ud800" + "x" * 5000)
        delivery.reject("again")
        delivery.ack()
    with broker.dead_letters("jobs") as consumer:
        (dead,) = consumer.receive(timeout=0)
        assert (dead.id, dead.key, dead.type, dead.value, dead.expires_at) == (id, "k", "t", {"n": 1}, None)
        about = {name: dead.headers[f"dead-letter-{name}"] for name in ("source", "reason", "attempts")}
        assert about == {"source": "jobs", "reason": "\\ud800" + "x" * 999, "attempts": "2"}
        assert dead.headers["h"] == "v"
        assert abs(float(dead.headers["dead-letter-time"]) - time.time()) < 60
        broker.publish("jobs", dead.message)
        with broker.subscribe("jobs") as again:
            assert again.receive(timeout=0)[0].attempt == 1


def test_refuses(open_broker) -> None:
    with pytest.raises(ConfigurationError, match="native options"):
        open_broker(Queue("jobs", native={"memory": {"a": 1}}))
    with pytest.raises(ConfigurationError, match="installed adapters"):
        open_broker(Queue("jobs", native={"nats": {"a": 1}}))
    with pytest.raises(ConfigurationError, match="MemoryServer"):
        messaging.connect("memory://", server="x")
    with pytest.raises(ConfigurationError, match="give them to MemoryServer"):
        messaging.connect("memory://", server=MemoryServer(), capacity=5)
    for url in (
        "memory://localhost",
        "memory://u@",
        "memory:///x",
        "memory://?retain=-1",
        "memory://?capacity=0",
        "memory://?lease=inf",
    ):
        with pytest.raises(ConfigurationError):
            messaging.connect(url)
    with pytest.raises(UnsupportedCapability):
        open_broker().capabilities.require("transactions", "memory")


@pytest.mark.parametrize("round", range(20))
def test_nothing_lost_or_doubled_under_threads(round: int) -> None:
    """Publishers, consumers that ack, nack and reject at random, one that is closed and opened again all the time."""
    with messaging.connect("memory://", topology=JOBS) as broker:
        acked: Counter[int] = Counter()
        rejected: Counter[int] = Counter()
        finished = messaging.broker.Future()  # type: ignore[attr-defined]
        errors: list[BaseException] = []

        def guarded(body):
            def run() -> None:
                try:
                    body()
                except BaseException as error:
                    errors.append(error)

            return Thread(target=run)

        def consume() -> None:
            chance = random.Random(round)
            with broker.subscribe("jobs", prefetch=7) as consumer:
                while not finished.done():
                    for delivery in consumer.receive(3, timeout=0.01):
                        what = chance.random()
                        if what < 0.6:
                            delivery.ack()
                            acked[delivery.value] += 1
                        elif what < 0.9:
                            delivery.nack()
                        else:
                            delivery.reject("no")
                            rejected[delivery.value] += 1

        def reopen() -> None:
            while not finished.done():
                with broker.subscribe("jobs", prefetch=5) as consumer:
                    consumer.receive(timeout=0)

        consumers = [guarded(consume), guarded(consume), guarded(reopen)]
        publishers = [guarded(lambda n=n: broker.publish_many("jobs", range(n, n + 100))) for n in (0, 100)]
        for thread in consumers + publishers:
            thread.start()
        for thread in publishers:
            thread.join(10)
        deadline = time.monotonic() + 10
        with broker.subscribe("jobs", prefetch=1) as watcher:
            watcher.pause()
            while watcher.lag() and time.monotonic() < deadline and not errors:
                consumers[0].join(0.002)
        finished.set_result(None)
        for thread in consumers:
            thread.join(10)
        assert errors == []
        assert acked + rejected == Counter(range(200))
        assert broker.dead_letter_depth("jobs") == rejected.total()


def test_publish_failed_is_raised_for_a_full_queue(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS, server=MemoryServer(clock, capacity=1))
    producer = broker.producer(timeout=0.02)
    producer.publish("jobs", 1)
    with pytest.raises(PublishFailed, match="full"):
        producer.publish("jobs", 2)
    assert broker.depth("jobs") == 1
