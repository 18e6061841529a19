from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    ConfigurationError,
    DestinationNotFound,
    TopologyError,
    UnsupportedCapability,
)
from messaging.topology import Queue, Source, Subscription, Topic, Topology
from messaging_rabbitmq import RabbitMQDriver, RabbitMQOptions

from .helpers import opened

Declare = Callable[[Topology], Topology]


def test_declaring_twice_and_checking(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    topology = Topology(Queue(name), Topic(name + "-t", Subscription("a"), Subscription("b", "x.#"), ordered=True))
    with pytest.raises(DestinationNotFound):
        driver.declare(topology, False)
    declared(topology)
    driver.declare(topology, True)
    driver.declare(topology, False)
    driver.delete(topology)
    driver.delete(topology)
    with pytest.raises(DestinationNotFound):
        driver.declare(topology, False)


def test_a_different_queue_of_that_name(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    declared(Topology(Queue(name, native={"rabbitmq": {"max_length": 10}})))
    for create in (True, False):
        with pytest.raises(TopologyError, match="x-max-length"):
            driver.declare(Topology(Queue(name)), create)


@pytest.mark.parametrize(
    "wrong",
    [
        Queue("q", native={"rabbitmq": {"maxlength": 1}}),
        Queue("q", native={"rabbitmq": {"type": "stream"}}),
        Queue("q", native={"rabbitmq": {"max_length": 0}}),
        Queue("q", native={"rabbitmq": {"max_length": True}}),
        Topic("t", native={"rabbitmq": {"exchange": "headers"}}),
        Topic("t", Subscription("g", "a.*"), native={"rabbitmq": {"exchange": "fanout"}}),
        Topic("t", Subscription("g"), native={"rabbitmq": {"exchange": "direct"}}),
        Topic("t", Subscription("g", native={"rabbitmq": {"exchange": "topic"}})),
    ],
    ids=str,
)
def test_wrong_native_options(driver: RabbitMQDriver, wrong: Queue | Topic) -> None:
    with pytest.raises(ConfigurationError):
        driver.declare(Topology(wrong), True)


def test_a_consumer_timeout_needs_a_broker_that_knows_it(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    queue = Queue(name, native={"rabbitmq": {"consumer_timeout": 3600}})
    if driver.capabilities.max_message_bytes == 16 * 1024 * 1024:
        declared(Topology(queue))
        (finding,) = [f for f in driver.inspect(driver.plan(Topology(queue))) if f.part.name == name]
        assert (finding.state, finding.differences) == ("unknown", ())  # RabbitMQ would say so of any value
        assert "x-consumer-timeout" in finding.way_out
    else:
        with pytest.raises(UnsupportedCapability):
            driver.declare(Topology(queue), True)


@pytest.mark.parametrize("kind", ["direct", "fanout"])
def test_other_exchanges(driver: RabbitMQDriver, declared: Declare, name: str, kind: str) -> None:
    pattern = "#" if kind == "fanout" else "order.placed"
    topic = Topic(name, Subscription("g", pattern), native={"rabbitmq": {"exchange": kind}})
    declared(Topology(topic))
    assert driver.depth(Source(topic, topic.subscriptions[0])) == 0


def test_wrong_credentials(options: RabbitMQOptions) -> None:
    with pytest.raises(AuthenticationFailed, match="localhost"), opened(options, password="wrong"):
        pass


def test_wrong_virtual_host(options: RabbitMQOptions) -> None:
    with pytest.raises(ConfigurationError, match="virtual host"), opened(options, path="/no-such"):
        pass


def test_nobody_listens(options: RabbitMQOptions) -> None:
    with pytest.raises(BrokerUnavailable), opened(options, hosts=(("127.0.0.1", 1),), connect_timeout=2.0):
        pass


def test_tls_where_there_is_none(options: RabbitMQOptions) -> None:
    with pytest.raises(ConfigurationError, match="TLS"), opened(options, tls=True):
        pass


def test_nobody_answers(options: RabbitMQOptions) -> None:
    from messaging_contract.faults import TcpProxy

    host, port = options.hosts[0]
    silent = TcpProxy((host, port or 5672))
    silent.blackhole()
    try:
        with (
            pytest.raises(BrokerUnavailable),
            opened(options, hosts=(("127.0.0.1", silent.port),), connect_timeout=1.0),
        ):
            pass
    finally:
        silent.close()


def test_dead_hosts_are_skipped(options: RabbitMQOptions) -> None:
    with opened(replace(options, hosts=(("127.0.0.1", 1), *options.hosts))) as driver:
        driver.ping()
