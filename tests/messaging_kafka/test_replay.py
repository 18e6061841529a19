"""Going back, within what the broker keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from messaging import Broker, Consumer, Message
from messaging.errors import TopologyError

from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]


@pytest.fixture
def began() -> float:
    """When the first of five messages was published; the others followed ten seconds apart."""
    return round(time.time()) - 100.0


@pytest.fixture
def broker(connect: Connect, name: str, began: float) -> Broker:
    broker = connect(one_partition(name))
    broker.publish_many(name, [Message(b"%d" % n, id=str(n), timestamp=began + 10 * n) for n in range(5)])
    return broker


def finish(consumer: Consumer, bodies: list[bytes]) -> None:
    taken = take(consumer, len(bodies))
    assert [d.body for d in taken] == bodies
    consumer.ack(taken)
    consumer.flush()


def test_from_the_beginning_an_offset_and_a_time(broker: Broker, cluster: Cluster, name: str, began: float) -> None:
    everything = [b"0", b"1", b"2", b"3", b"4"]
    with broker.subscribe(name, "g") as consumer:
        finish(consumer, everything)
        for since, offset in (
            ("beginning", 0),
            ({0: 3}, 3),
            (began + 20, 2),
            (datetime.fromtimestamp(began + 21, UTC), 3),
            (0.0, 0),
        ):
            consumer.replay(since)  # type: ignore[arg-type]
            assert cluster.committed(f"{name}--g", name) == {0: offset}
            finish(consumer, everything[offset:])
            assert cluster.committed(f"{name}--g", name) == {0: 5}
        consumer.replay(time.time() + 60)
        assert consumer.receive(1, 0.3) == []
        assert cluster.committed(f"{name}--g", name) == {0: 5}


def test_what_was_unsettled_is_stale_after_it(broker: Broker, cluster: Cluster, name: str) -> None:
    with broker.subscribe(name, "g") as consumer:
        old = take(consumer, 5)
        consumer.replay({0: 1})
        consumer.ack(old)
        old[0].nack()
        consumer.flush()
        assert cluster.committed(f"{name}--g", name) == {0: 1}
        finish(consumer, [b"1", b"2", b"3", b"4"])


def test_it_survives_a_close(broker: Broker, name: str) -> None:
    with broker.subscribe(name, "g") as consumer:
        finish(consumer, [b"0", b"1", b"2", b"3", b"4"])
        consumer.replay({0: 2})
    with broker.subscribe(name, "g") as consumer:
        finish(consumer, [b"2", b"3", b"4"])


def test_wrong_positions(broker: Broker, cluster: Cluster, name: str) -> None:
    with broker.subscribe(name, "g") as consumer:
        with pytest.raises(TopologyError, match="no partitions"):
            consumer.replay({7: 0})
        with pytest.raises(ValueError, match="beginning"):
            consumer.replay("start")  # type: ignore[arg-type]
        finish(consumer, [b"0", b"1", b"2", b"3", b"4"])


def test_other_groups_stay_where_they_are(connect: Connect, broker: Broker, cluster: Cluster, name: str) -> None:
    broker.declare(one_partition(name, "other"))
    with broker.subscribe(name, "g") as consumer:
        consumer.replay("beginning")
        finish(consumer, [b"0", b"1", b"2", b"3", b"4"])
    assert cluster.committed(f"{name}--other", name) == {0: 5}
