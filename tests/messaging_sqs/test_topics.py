"""Topics over SNS: each subscription its own copy, patterns, and what is declared is what is there."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import messaging
from messaging import Subscription, Topic
from messaging.broker import Broker
from messaging.errors import DestinationNotFound, TopologyError

from .test_messages import take
from .test_settling import nothing_for

Connect = Callable[..., Broker]

pytestmark = pytest.mark.only("sqs:ministack", "sqs:moto-process")

TYPES = ["", "order", "order.placed", "order.placed.eu", "orders", "payment.placed", "a.b.c"]
WANTED = {
    "all": ("#", TYPES),
    "exact": ("order.placed", ["order.placed"]),
    "word": ("order.*", ["order.placed"]),
    "words": ("order.#", ["order", "order.placed", "order.placed.eu"]),
    "middle": ("a.*.c", ["a.b.c"]),
    "suffix": ("*.placed", ["order.placed", "payment.placed"]),
    "anywhere": ("#.placed.#", ["order.placed", "order.placed.eu", "payment.placed"]),
    "one": ("*", ["order", "orders"]),
    "everything": ("#.#", TYPES),
}


@pytest.fixture
def topics(connect: Connect) -> Broker:
    broker = connect()
    if not broker.capabilities.topics:
        pytest.skip(f"no topics: {broker.capabilities.topics.how}")
    return broker


@pytest.mark.parametrize("ordered", [False, True])
def test_every_subscription_gets_what_its_pattern_takes(topics: Broker, name: str, ordered: bool) -> None:
    groups = [Subscription(group, pattern) for group, (pattern, _) in WANTED.items()]
    topics.declare(Topic(name, *groups, ordered=ordered))
    for type_ in TYPES:
        topics.publish(name, {"t": type_}, type=type_, key="k", headers={"h": "v"})
    for group, (_, wanted) in WANTED.items():
        consumer = topics.subscribe(name, group)
        taken = []
        for _ in wanted:
            (delivery,) = take(consumer, 1)
            taken.append(delivery.type)
            assert (delivery.key, delivery.headers, delivery.value) == ("k", {"h": "v"}, {"t": delivery.type})
            delivery.ack()
        assert (taken if ordered else sorted(taken)) == (wanted if ordered else sorted(wanted))
        nothing_for(consumer, 0.3)


def test_a_subscription_is_rejected_and_dead_lettered_alone(topics: Broker, name: str) -> None:
    topics.declare(Topic(name, "one", "two"))
    topics.publish(name, b"x")
    with topics.subscribe(name, "one") as one, topics.subscribe(name, "two") as two:
        take(one, 1)[0].reject("bad")
        take(two, 1)[0].ack()
        one.flush()
    assert (topics.dead_letter_depth(name, "one"), topics.dead_letter_depth(name, "two")) == (1, 0)


def test_nobody_subscribed_is_no_error(topics: Broker, name: str) -> None:
    topics.declare(Topic(name))
    topics.publish(name, b"x")


def test_a_pattern_declared_differently(topics: Broker, name: str, url: str) -> None:
    topics.declare(Topic(name, Subscription("g", "a.*.c")))
    with messaging.connect(url, topology=Topic(name, Subscription("g", "a.*.c"))):
        pass
    for pattern in ("a.#.c", "a.b", "#"):
        with pytest.raises(TopologyError, match="delete it first"):
            messaging.connect(url, topology=Topic(name, Subscription("g", pattern)))


def test_the_queue_lets_its_topic_send(topics: Broker, name: str) -> None:
    topics.declare(Topic(name, "g"))
    sqs = topics.native
    url = sqs.get_queue_url(QueueName=f"{name}--g")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "sns.amazonaws.com"}
    assert statement["Condition"]["ArnEquals"]["aws:SourceArn"].endswith(f":{name}")


def test_checking_only(topics: Broker, name: str, url: str) -> None:
    with pytest.raises(DestinationNotFound):
        messaging.connect(url, topology=Topic(name, "g"), create=False)
    topics.declare(Topic(name, "g"))
    with messaging.connect(url, topology=Topic(name, "g"), create=False) as broker:
        broker.publish(name, b"x")
    with pytest.raises(DestinationNotFound):
        messaging.connect(url, topology=Topic(name, "other"), create=False)


def test_a_deleted_topic_made_again_has_no_old_subscriptions(topics: Broker, name: str) -> None:
    topics.declare(Topic(name, Subscription("g", "a")))
    topics.delete(Topic(name, Subscription("g", "a")))
    topics.declare(Topic(name, Subscription("g", "b")))
    topics.publish(name, b"1", type="b")
    with topics.subscribe(name, "g") as consumer:
        take(consumer, 1)[0].ack()
