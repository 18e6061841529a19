import pytest

from messaging import LeaseLost, Message, Queue
from messaging_memory import ManualClock

JOBS = Queue("jobs")
LANE = Queue("lane", ordered=True)


def test_an_expired_lease_goes_to_somebody_else(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    broker.publish("jobs", 1)
    one = broker.subscribe("jobs", lease=10, heartbeat=False)
    two = broker.subscribe("jobs")
    (first,) = one.receive(timeout=0)
    clock.advance(9.9)
    assert two.receive(timeout=0) == []
    clock.advance(0.1)
    (second,) = two.receive(timeout=0)
    assert (second.id, second.attempt) == (first.id, 2)
    first.ack()  # too late: does nothing
    assert broker.dead_letter_depth("jobs") == 0
    assert two.lag() == 1
    with pytest.raises(LeaseLost):
        first.extend(5)
    second.ack()
    assert two.lag() == 0


def test_extend_keeps_it(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    broker.publish("jobs", 1)
    one = broker.subscribe("jobs", lease=10, heartbeat=False)
    (delivery,) = one.receive(timeout=0)
    clock.advance(9)
    delivery.extend(10)
    clock.advance(9)
    assert broker.subscribe("jobs").receive(timeout=0) == []
    delivery.ack()
    assert broker.depth("jobs") == 0


def test_extend_never_shortens_what_the_heartbeat_keeps(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    broker.publish("jobs", 1)
    consumer = broker.subscribe("jobs")
    (delivery,) = consumer.receive(timeout=0)
    delivery.extend(1)
    clock.advance(1000)
    assert broker.subscribe("jobs").receive(timeout=0) == []
    delivery.ack()
    with pytest.raises(LeaseLost):
        delivery.extend(1)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_extend_by_nonsense(open_broker, seconds: float) -> None:
    broker = open_broker(JOBS)
    broker.publish("jobs", 1)
    (delivery,) = broker.subscribe("jobs").receive(timeout=0)
    with pytest.raises(ValueError, match="positive"):
        delivery.extend(seconds)
    with pytest.raises(ValueError, match="from 0"):
        delivery.nack(delay=-1 if seconds == 0 else seconds)


def test_an_expired_lease_frees_its_prefetch_slot(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    broker.publish_many("jobs", [1, 2])
    one = broker.subscribe("jobs", lease=10, heartbeat=False, prefetch=1)
    (first,) = one.receive(timeout=0)
    assert one.receive(timeout=0) == []
    clock.advance(10)
    (again,) = one.receive(timeout=0)
    assert (again.id, again.attempt) == (first.id, 2)


def test_one_expired_lease_does_not_unlock_a_key_with_others(open_broker, clock: ManualClock) -> None:
    broker = open_broker(LANE)
    broker.publish_many("lane", [Message.of(n, key="k") for n in range(3)])
    one = broker.subscribe("lane", lease=10, heartbeat=False)
    (head,) = one.receive(timeout=0)  # one holds all three; two wait in the lane
    clock.advance(5)
    head.extend(20)
    clock.advance(6)  # the leases of the other two end
    two = broker.subscribe("lane")
    assert two.receive(timeout=0) == []
    head.ack()
    assert [d.value for d in one.receive(timeout=0) + two.receive(timeout=0)] == [1]
    one.close()
    assert [d.value for d in two.receive(timeout=0)] in ([1], [])


def test_close_gives_back_at_once(open_broker) -> None:
    broker = open_broker(JOBS)
    broker.publish_many("jobs", range(3))
    one = broker.subscribe("jobs")
    one.receive(timeout=0)
    one.close()
    deliveries = broker.subscribe("jobs").receive(timeout=0)
    assert [(d.value, d.attempt) for d in deliveries] == [(0, 2), (1, 2), (2, 2)]


def test_a_nack_on_an_ordered_queue_waits_by_the_same_clock(open_broker, clock: ManualClock) -> None:
    broker = open_broker(Queue("transfers", ordered=True))
    broker.publish("transfers", 1, key="k")
    consumer = broker.subscribe("transfers")
    consumer.receive(1)[0].nack(delay=3600)
    assert not consumer.receive(1, timeout=0)
    clock.advance(3600)
    assert [d.attempt for d in consumer.receive(1)] == [2]


def test_a_purge_drops_what_an_expired_lease_held(open_broker, clock: ManualClock) -> None:
    broker = open_broker(JOBS)
    broker.publish("jobs", 1)
    consumer = broker.subscribe("jobs", lease=5, heartbeat=False)
    consumer.receive(1)
    clock.advance(6)
    broker.purge("jobs")
    assert not consumer.receive(1, timeout=0)
