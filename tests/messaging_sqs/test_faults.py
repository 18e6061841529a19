"""A broker that is not there, goes away, or does not answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

import messaging
from messaging import Queue, Wait
from messaging.broker import Broker
from messaging.errors import AuthenticationFailed, BrokerUnavailable, ConfigurationError, PublishTimeout
from messaging_contract.faults import TcpProxy
from messaging_contract.gate import Gate

Connect = Callable[..., Broker]

# What the client does alone is the same on every endpoint.
pytestmark = pytest.mark.only("sqs:ministack", "sqs:moto-process")


@pytest.fixture
def proxy(url: str) -> Iterator[TcpProxy]:
    match = re.match(r"sqs://(?:[^@/]*@)?([^:/?,]+):(\d+)", url)
    if match is None:
        pytest.skip("needs an endpoint with host and port")
    proxy = TcpProxy((match[1], int(match[2])))
    yield proxy
    proxy.close()


def through(url: str, proxy: TcpProxy, **options: object) -> str:
    extra = "".join(f"&{name}={value}" for name, value in options.items())
    return re.sub(r"(sqs://(?:[^@/]*@)?)[^/?]+", rf"\g<1>127.0.0.1:{proxy.port}", url) + extra


def test_nobody_listens(url: str, proxy: TcpProxy) -> None:
    proxy.cut()
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        messaging.connect(through(url, proxy, connect_timeout=1))
    assert time.monotonic() - start < 4.5  # the default is 5


def test_nobody_answers(url: str, proxy: TcpProxy) -> None:
    proxy.blackhole()
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        messaging.connect(through(url, proxy, connect_timeout=1))
    assert time.monotonic() - start < 4.5


def test_a_dead_host_is_skipped(url: str) -> None:
    with messaging.connect(re.sub(r"(sqs://(?:[^@/]*@)?)([^/?]+)", r"\g<1>127.0.0.1:1,\2", url)) as broker:
        broker.ping()


def test_credentials_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(AuthenticationFailed, match="access_key"):
        messaging.connect("sqs://127.0.0.1:9?region=us-east-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(ConfigurationError, match="region"):
        messaging.connect("sqs://?access_key=a&secret_key=b")


@pytest.mark.parametrize("ordered", [False, True])
def test_the_broker_goes_away_and_comes_back_while_publishing(
    connect: Connect, url: str, name: str, proxy: TcpProxy, ordered: bool
) -> None:
    direct = connect(Queue(name, ordered=ordered))
    broker = connect(Queue(name, ordered=ordered), target=through(url, proxy))
    futures: dict[str, Future[str]] = {}

    def publish(count: int) -> None:
        for _ in range(count):
            id = f"{name}-{len(futures)}"
            futures[id] = broker.publish_nowait(name, {"n": len(futures)}, id=id, key=f"k{len(futures) % 5}")

    publish(150)
    proxy.cut()
    publish(150)
    proxy.resume()
    publish(50)
    broker.flush(30)
    confirmed = {id for id, future in futures.items() if future.exception() is None}
    assert len(confirmed) == 350
    received: list[tuple[str, int]] = []
    with direct.subscribe(name) as consumer:
        deadline = time.monotonic() + 60
        while not confirmed <= {id for id, _ in received} and time.monotonic() < deadline:
            for delivery in consumer.receive(100, 0.5):
                received.append((delivery.id, delivery.value["n"]))
                delivery.ack()
    ids = {id for id, _ in received}
    assert ids == confirmed
    if ordered:
        for key in range(5):
            mine = list(dict.fromkeys(n for _, n in received if n % 5 == key))
            assert mine == sorted(mine)


def test_the_broker_goes_away_and_comes_back_while_consuming(
    connect: Connect, url: str, name: str, proxy: TcpProxy
) -> None:
    direct = connect(Queue(name))
    broker = connect(Queue(name), target=through(url, proxy, read_timeout=3))
    sent = direct.publish_many(name, [{"n": n} for n in range(300)])
    received: set[str] = set()
    with broker.subscribe(name, lease=5, prefetch=50) as consumer:
        deadline = time.monotonic() + 60
        cut = False
        while len(received) < len(sent) and time.monotonic() < deadline:
            try:
                for delivery in consumer.receive(20, 0.5):
                    received.add(delivery.id)
                    delivery.ack()
            except messaging.SettleFailed:
                continue
            if len(received) > 100 and not cut:
                cut = True
                proxy.cut()
                for delivery in consumer.receive(1, 0.2):  # it may have been read before
                    received.add(delivery.id)
                    delivery.ack()
                proxy.resume()
        assert received == set(sent)
        while consumer.lag() and time.monotonic() < deadline:
            try:
                consumer.ack(consumer.receive(20, 0.5))
                consumer.flush()
            except messaging.SettleFailed:
                continue
        assert consumer.lag() == 0


def test_a_publish_that_nobody_answers_ends_in_time(connect: Connect, url: str, name: str, proxy: TcpProxy) -> None:
    connect(Queue(name))
    broker = connect(Queue(name), target=through(url, proxy, read_timeout=2))
    with broker.producer(timeout=1.0) as producer:
        proxy.blackhole()
        start = time.monotonic()
        with pytest.raises(PublishTimeout):
            producer.publish(name, b"x")
        assert time.monotonic() - start < 10  # the default is 30


def test_a_throttled_publish_that_nobody_waits_for_any_more_has_ended(
    connect: Connect, gated: str, gate: Gate, name: str, eventually: Callable[..., None]
) -> None:
    broker = connect(Queue(name), target=gated)
    told: list[Wait] = []
    with broker.producer(timeout=1.0, on_wait=told.append) as producer:
        gate.throttled.set()
        with pytest.raises(PublishTimeout, match="RequestThrottled"):
            producer.publish(name, b"x")
        eventually(lambda: not producer.waiting)
        assert [(wait.reason, wait.ended) for wait in told] == [("throttled", False), ("throttled", True)]
        gate.throttled.clear()
        with broker.producer() as other:
            other.publish(name, b"x")
            assert not other.waits


def test_close_is_bounded_when_nobody_answers(connect: Connect, url: str, name: str, proxy: TcpProxy) -> None:
    direct = connect(Queue(name))
    broker = connect(Queue(name), target=through(url, proxy, read_timeout=2))
    direct.publish_many(name, [b"x"] * 5)
    consumer = broker.subscribe(name)
    for delivery in consumer.receive(5, 5):
        delivery.ack()
    proxy.blackhole()
    start = time.monotonic()
    consumer.close()
    broker.close()
    assert time.monotonic() - start < 14
