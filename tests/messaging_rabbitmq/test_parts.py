"""The parts that need no broker."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.errors import ConfigurationError, MessagingError, PublishFailed, UnsupportedCapability
from messaging.message import Message
from messaging.topology import Queue, Source, Topology
from messaging_rabbitmq import RabbitMQOptions, wire
from messaging_rabbitmq.acks import TagWindow
from messaging_rabbitmq.confirms import Batch, Confirms, Route
from messaging_rabbitmq.parts import (
    MAX_DELAY,
    Version,
    WaitQueue,
    all_delays,
    check_nack,
    queue_arguments,
    retry_parts,
    round_delay,
)


@given(st.permutations(range(1, 30)), st.integers(1, 7))
def test_acks_cover_exactly_what_was_acked(order: list[int], lot: int) -> None:
    window = TagWindow()
    for tag in range(1, 30):
        window.delivered(tag)
    open_at_broker = set(range(1, 30))
    for start in range(0, len(order), lot):
        acked = order[start : start + lot]
        for tag, multiple in window.ack(acked):
            assert tag in open_at_broker, "RabbitMQ closes the channel for a tag it does not know"
            open_at_broker -= {t for t in open_at_broker if t <= tag} if multiple else {tag}
        assert open_at_broker == set(order[start + lot :])
        assert window.unsettled == len(open_at_broker)
    assert window.ack([1, 5, 29]) == []


def test_acks_in_order_are_one_frame() -> None:
    window = TagWindow()
    for tag in range(1, 101):
        window.delivered(tag)
    assert window.ack(range(1, 51)) == [(50, True)]
    assert window.settle(51)
    assert not window.settle(51)
    assert window.ack([52, 53]) == [(53, True)]
    assert window.ack([54]) == [(54, False)]
    assert window.unsettled == 46


@given(st.floats(0.0001, MAX_DELAY))
def test_delays_are_rounded_up_and_few(delay: float) -> None:
    rounded = round_delay(delay)
    assert rounded >= delay * 1000 - 1e-3
    assert rounded <= max(delay * 1000 * 1.1, delay * 1000 + 1) + 1
    assert rounded in all_delays(len(str(rounded)))
    assert rounded < 2**31


def test_an_ordered_message_waits_no_longer_than_the_consumer_timeout() -> None:
    check_nack(Source(Queue("q")), MAX_DELAY, 1800)
    check_nack(Source(Queue("q", ordered=True)), 1800, 1800)
    with pytest.raises(UnsupportedCapability, match="consumer_timeout"):
        check_nack(Source(Queue("q", ordered=True)), 1801, 1800)
    check_nack(Source(Queue("q", ordered=True)), 1801, 3600)
    raised = Queue("q", ordered=True, native={"rabbitmq": {"consumer_timeout": 7200}})
    check_nack(Source(raised), 7200, 1800)
    for source, delay in ((Source(raised), 7201.0), (Source(Queue("q")), MAX_DELAY + 1)):
        with pytest.raises(UnsupportedCapability):
            check_nack(source, delay, 1800)


def test_only_unordered_retries_make_wait_queues() -> None:
    topology = Topology(Queue("plain"), Queue("ordered", ordered=True))
    made = retry_parts(topology, Version(4, 0), [1.0, 7200.0])
    assert {"plain--retry--1000", "plain--retry--7200000"} < {part.name for part in made}
    assert not [part for part in made if "ordered" in part.name]


def ack(number: int, multiple: bool = False, method: int = wire.ACK) -> bytes:
    return pack(">IQB", method, number, multiple)


def confirms(*types: str) -> tuple[Confirms, dict[int, MessagingError | None], Batch]:
    outcomes: dict[int, MessagingError | None] = {}
    messages = [Message(b"", type=type_, id=str(index)) for index, type_ in enumerate(types)]
    route = Route("d", "d", "", True, True, None)
    batch = Batch(messages, route, outcomes.__setitem__, 0.0, None)
    tracked = Confirms()
    for index in range(len(messages)):
        tracked.add((batch, index))
    return tracked, outcomes, batch


def feed(tracked: Confirms, kind: int, data: bytes) -> None:
    assert tracked.frame(kind, data, 0, len(data))


def test_confirms_single_multiple_late_and_twice() -> None:
    tracked, outcomes, _ = confirms(*"abcdef")
    feed(tracked, wire.METHOD, ack(2))
    feed(tracked, wire.METHOD, ack(4, multiple=True))
    assert set(outcomes) == {0, 1, 2, 3}
    feed(tracked, wire.METHOD, ack(4, multiple=True))
    feed(tracked, wire.METHOD, ack(2))
    feed(tracked, wire.METHOD, ack(5, method=wire.NACK))
    assert outcomes[4] is not None
    assert len(tracked) == 1
    assert len(tracked.restart()) == 1
    assert len(tracked) == 0


def test_what_a_wait_queue_refuses_is_sent_once_more() -> None:
    wait = WaitQueue("q", 50, "retry")
    outcomes: dict[int, MessagingError | None] = {}
    batch = Batch([Message(b"", id="0")], Route("q", "", wait.name, False, True, wait), outcomes.__setitem__, 0.0, None)
    tracked = Confirms()
    tracked.add((batch, 0))
    feed(tracked, wire.METHOD, ack(1, method=wire.NACK))
    assert (tracked.vanished, outcomes) == ([(batch, 0)], {})
    tracked.vanished.clear()
    tracked.add((batch, 0))
    feed(tracked, wire.METHOD, ack(2, method=wire.NACK))
    assert isinstance(outcomes[0], PublishFailed)


def test_a_return_belongs_to_its_message() -> None:
    tracked, outcomes, _ = confirms("a", "b", "c")
    returned = Message(b"body", type="b", id="1")
    header = wire.content_frames(returned, 0, 1, 4096)
    size = len(header) - len(b"body") - 8
    feed(tracked, wire.METHOD, pack(">IH", wire.RETURN, 312) + b"\x08NO_ROUTE\x01d\x01b")
    feed(tracked, wire.HEADER, header[7 : size - 1])
    feed(tracked, wire.BODY, b"body")
    feed(tracked, wire.METHOD, ack(3, multiple=True))
    assert [outcomes[index] is None for index in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "version"), [("4.0.5", (4, 0)), ("3.10.8", (3, 10)), ("4.3.0-rc.1", (4, 3)), ("", (3, 10)), ("x", (3, 10))]
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert Version.of({"version": text}) == Version(*version)
    assert Version.of({"version": text.encode()}) == Version(*version)


def test_a_delivery_limit_is_set_where_it_means_unlimited() -> None:
    plain, ordered = Source(Queue("q")), Source(Queue("q", ordered=True))
    assert queue_arguments(plain, Version(4, 0))["x-delivery-limit"] == -1
    assert "x-delivery-limit" not in queue_arguments(plain, Version(3, 10))
    assert queue_arguments(ordered, Version(3, 10))["x-delivery-limit"] == 2**31 - 1


@pytest.mark.parametrize(("path", "vhost"), [("", "/"), ("/", "/"), ("/orders", "/orders"), ("orders", "orders")])
def test_virtual_hosts(path: str, vhost: str) -> None:
    assert RabbitMQOptions(path=path).vhost == vhost
    assert RabbitMQOptions(path=path).parameters("h", 1).virtual_host == (vhost or "/")


@pytest.mark.parametrize("wrong", [{"heartbeat": 0}, {"connect_timeout": 0}, {"reconnect_min": 9.0}])
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        RabbitMQOptions(**wrong)  # type: ignore[arg-type]
