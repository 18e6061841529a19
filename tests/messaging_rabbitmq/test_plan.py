"""What a plan says is what declaring makes, and what a look at the broker tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest

from messaging import ConfigurationError, Finding, Queue, Subscription, Topic, Topology, UnsupportedCapability
from messaging.driver import Outgoing
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.topology import Source
from messaging_rabbitmq import RabbitMQDriver, RabbitMQOptions
from messaging_rabbitmq.parts import Version, parts_of, retry_parts

Declare = Callable[[Topology], Topology]
Inside = Callable[[str, str], str]


@pytest.fixture
def channel(url: str) -> Iterator[Any]:
    """The client library's own, to look and change behind the adapter's back."""
    parts = urlsplit(url)
    credentials = pika.PlainCredentials(parts.username or "guest", parts.password or "guest")
    where = pika.ConnectionParameters(parts.hostname or "localhost", parts.port or 5672, "/", credentials)
    connection = pika.BlockingConnection(where)
    yield connection.channel()
    connection.close()


def everything(name: str) -> Topology:
    return Topology(
        Queue(name, native={"rabbitmq": {"max_length": 100}}),
        Queue(f"{name}-o", ordered=True),
        Queue(f"{name}-c", native={"rabbitmq": {"type": "classic"}}, dead_letter=False),
        Topic(f"{name}-t", Subscription("a"), Subscription("b", "x.#", dead_letter=False)),
        Topic(f"{name}-d", Subscription("a", "x.y"), native={"rabbitmq": {"exchange": "direct"}}),
    )


def states(findings: list[Finding]) -> set[str]:
    return {finding.state for finding in findings}


def test_what_is_planned_is_what_is_made(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    topology = everything(name)
    plan = driver.plan(topology)
    assert states(driver.inspect(plan)) == {"missing"}
    assert states(driver.inspect(plan)) == {"missing"}, "looking made something"
    declared(topology)
    assert {f.part.kind for f in driver.inspect(plan) if f.state != "there"} == {"binding"}
    assert not any(finding.drifted for finding in driver.inspect(plan))
    driver.delete(topology)
    assert states(driver.inspect(plan)) == {"missing"}


def test_the_queues_of_a_retry(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    topology = declared(Topology(Queue(name)))
    plan = driver.plan(topology, [0.25, 3600])
    retries = [part for part in plan if part.on_demand]
    assert {part.name for part in retries if part.kind == "queue"} == {f"{name}--retry--250", f"{name}--retry--3600000"}
    found = driver.inspect(retries)
    assert states(found) == {"missing"}
    assert not any(f.drifted for f in found)
    source = Source(Queue(name))
    sender = driver.sender(ProducerOptions())
    sender.send([Message(b"x", id="1")], Outgoing(Queue(name)), lambda _index, _error: None)
    receiver = driver.receiver(source, ConsumerOptions())
    (delivery,) = receiver.receive(1, 10.0)
    receiver.nack([delivery], 3600)
    receiver.flush(10.0)
    made = [part for part in retries if not part.name.endswith(("--250", "3-digits"))]
    assert states(driver.inspect(made)) == {"there"}
    assert driver.leftovers(topology, [3600]) == []
    (left,) = driver.leftovers(topology, [0.25])
    assert (left.name, left.settings["messages"]) == (f"{name}--retry--3600000", 1)
    assert driver.leftovers(Topology(Queue(f"{name}-new")), [0.25]) == []
    assert driver.leftovers(topology, None) == [], "nobody said which retries there are"


@pytest.mark.parametrize(
    ("made", "setting", "found"),
    [
        ({"x-queue-type": "quorum", "x-max-length": 10}, "x-max-length", 10),
        ({"x-queue-type": "classic"}, "x-queue-type", "classic"),
        ({"x-queue-type": "quorum", "x-overflow": "drop-head"}, "x-overflow", "drop-head"),
        ({"x-queue-type": "quorum", "x-single-active-consumer": True}, "x-single-active-consumer", True),
        ({"x-queue-type": "quorum"}, "x-max-length", None),
    ],
    ids=str,
)
def test_a_queue_with_other_arguments(
    driver: RabbitMQDriver, channel: Any, name: str, made: dict[str, Any], setting: str, found: Any
) -> None:
    topology = Topology(Queue(name, dead_letter=False, native={"rabbitmq": {"max_length": 100}}))
    channel.queue_declare(name, durable=True, arguments=made)
    try:
        (finding,) = driver.inspect(driver.plan(topology))
        assert finding.state == "different"
        by_name = {difference.setting: difference for difference in finding.differences}
        assert by_name[setting].found == found
        assert by_name[setting].wanted == finding.part.settings.get(setting)
        assert by_name["x-max-length"].wanted == 100, "every difference is told, not only the first"
        assert "cannot be changed" in finding.way_out
        if "x-max-length" in made:
            assert "x-max-length is 10 and should be 100" in str(by_name["x-max-length"])
    finally:
        channel.queue_delete(name)


def test_a_queue_that_is_not_durable(driver: RabbitMQDriver, channel: Any, name: str) -> None:
    channel.queue_declare(
        name, exclusive=False, durable=False, auto_delete=False, arguments={"x-queue-type": "classic"}
    )
    try:
        topology = Topology(Queue(name, dead_letter=False, native={"rabbitmq": {"type": "classic"}}))
        (finding,) = driver.inspect(driver.plan(topology))
        assert finding.state == "different"
        assert "durable is False and should be True" in [str(d) for d in finding.differences]
    finally:
        channel.queue_delete(name)


def test_another_pattern_and_another_exchange(driver: RabbitMQDriver, declared: Declare, name: str) -> None:
    declared(Topology(Topic(name, Subscription("g", "a.*"))))
    other = Topology(Topic(name, Subscription("g", "b.*"), native={"rabbitmq": {"exchange": "topic"}}))
    by_kind = {f.part.kind: f for f in driver.inspect(driver.plan(other)) if f.state == "different"}
    assert [str(d) for d in by_kind["exchange"].differences] == ["pattern is a.* and should be b.*"]
    assert [str(d) for d in by_kind["binding"].differences] == ["routing_key is a.* and should be b.*"]
    (marker,) = [part for part in driver.plan(other) if part.name.endswith("--pattern")]
    (somebody_elses,) = driver.inspect([replace(marker, settings={**marker.settings, "type": "topic"})])
    assert str(somebody_elses.differences[0]) == "type is fanout and should be topic"
    direct = Topology(Topic(name, native={"rabbitmq": {"exchange": "direct"}}))
    (finding,) = driver.inspect(driver.plan(direct))
    assert [str(d) for d in finding.differences] == ["type is topic and should be direct"]


def test_a_binding_is_never_said_to_be_there(
    driver: RabbitMQDriver, declared: Declare, channel: Any, name: str
) -> None:
    topology = declared(Topology(Topic(name, Subscription("g"))))
    arguments = dict(driver.plan(topology)[2].settings)
    channel.queue_delete(f"{name}--g")  # takes the binding with it
    found = {f.part.kind: f for f in driver.inspect(driver.plan(topology)) if f.state != "there"}
    assert {kind: finding.state for kind, finding in found.items()} == {"queue": "missing", "binding": "missing"}
    channel.queue_declare(f"{name}--g", durable=True, arguments=arguments)
    (binding,) = [f for f in driver.inspect(driver.plan(topology)) if f.state != "there"]
    assert (binding.part.kind, binding.state, binding.drifted) == ("binding", "unknown", False)
    assert "rabbitmqctl list_bindings" in binding.way_out


def test_looking_needs_a_broker_and_planning_does_not() -> None:
    driver = RabbitMQDriver(RabbitMQOptions())
    assert driver.assume(None).startswith("RabbitMQ 4")
    assert driver.plan(Topology(Queue("q")))[0].settings["x-delivery-limit"] == -1
    assert driver.assume("3.13") == "RabbitMQ 3.13"
    assert "x-delivery-limit" not in driver.plan(Topology(Queue("q")))[0].settings
    for wrong in ("", "x", "3.9", "4.x", "-1"):
        with pytest.raises(ConfigurationError, match="supported"):
            driver.assume(wrong)


def test_a_retry_that_is_too_long() -> None:
    with pytest.raises(UnsupportedCapability, match="at most"):
        retry_parts(Topology(Queue("q")), Version(4, 0), [25 * 86400.0])


def test_every_part_says_why() -> None:
    assert all(part.why for part in parts_of(everything("n"), Version(4, 0)))


def test_definitions() -> None:
    driver = RabbitMQDriver(RabbitMQOptions(path="shop"))
    driver.assume("3.10")
    text = driver.export(driver.plan(everything("n")), "rabbitmq")
    content = json.loads(text)
    assert {queue["vhost"] for queue in content["queues"]} == {"shop"}
    assert "n--dlq" in [queue["name"] for queue in content["queues"]]
    assert {"source": "n-t", "destination": "n-t--b", "routing_key": "x.#"}.items() <= content["bindings"][1].items()
    with pytest.raises(ConfigurationError, match="rabbitmq"):
        driver.export([], "terraform")


def test_what_is_exported_can_be_imported(
    driver: RabbitMQDriver, declared: Declare, url: str, name: str, inside: Inside
) -> None:
    topology = everything(name)
    text = driver.export(driver.plan(topology, [5.0]), "rabbitmq")
    file = f"/tmp/{name}.json"
    load = f"rabbitmqctl import_definitions {file}; status=$?; rm {file}; exit $status"
    inside(url, f"cat > {file} <<'END'\n{text}END\n{load}")
    left = [finding for finding in driver.inspect(driver.plan(topology, [5.0])) if finding.state != "there"]
    assert {finding.part.kind for finding in left} == {"binding"}
    assert not any(finding.drifted for finding in left)
    bindings = inside(url, "rabbitmqctl --quiet list_bindings source_name destination_name routing_key")
    assert f"{name}-t\t{name}-t--b\tx.#" in bindings.splitlines()
    declared(topology)  # changes nothing, and the queues are deleted afterwards
