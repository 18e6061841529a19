from pathlib import Path
from typing import Any

import pytest

import messaging
from messaging.errors import ConfigurationError, TopologyError
from messaging.topology import Queue, Source, Subscription, Topic, Topology
from messaging.topology_file import read_topology


def test_declarations_of_one_topic_are_merged() -> None:
    one = Topology(Topic("orders", "a"), Topic("orders", Subscription("b", "x.*")), Queue("jobs"))
    assert [source.name for source in one.sources] == ["orders--a", "orders--b", "jobs"]
    assert one.merge(Topic("orders", "a")) == one
    assert one == Topology(Queue("jobs"), Topic("orders", "a", Subscription("b", "x.*")))


@pytest.mark.parametrize(
    "destinations",
    [
        (Queue("a"), Topic("a")),
        (Queue("a"), Queue("a", ordered=True)),
        (Queue("a"), Queue("a", dead_letter=False)),
        (Queue("a"), Queue("a", native={"kafka": {"partitions": 3}})),
        (Topic("a"), Topic("a", ordered=True)),
        (Topic("a"), Topic("a", native={"kafka": {"partitions": 3}})),
        (Topic("a", "g"), Topic("a", Subscription("g", "x.*"))),
        (Topic("a", "g"), Topic("a", Subscription("g", dead_letter=False))),
    ],
)
def test_contradictions_are_loud(destinations: tuple[Any, ...]) -> None:
    with pytest.raises(TopologyError, match="declared twice and differently"):
        Topology(*destinations)


@pytest.mark.parametrize("value", ["orders", ["orders"], [("orders",)], {"orders": 1}, [None]])
def test_only_destinations(value: Any) -> None:
    with pytest.raises(TopologyError, match="Queue and Topic"):
        messaging.connect("memory://", topology=value)


def test_a_group_is_declared_once() -> None:
    with pytest.raises(TopologyError, match="twice"):
        Topic("orders", "a", "a")


def test_dead_letters_are_ordered_like_their_source() -> None:
    topic = Topic("orders", Subscription("a"), Subscription("b", dead_letter=False), ordered=True)
    with_queue, without = Topology(topic).sources
    assert with_queue.dead_letter == Queue("orders--a--dlq", ordered=True, dead_letter=False)
    assert without.dead_letter is None
    assert Source(with_queue.dead_letter).dead_letter is None


def test_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("""
        [topology.queues.jobs]
        ordered = true
        [topology.topics.orders]
        native.kafka.partitions = 12
        [topology.topics.orders.subscriptions.inventory]
        pattern = "order.*"
        [topology.topics.empty]
        """)
    with messaging.connect("memory://", config_file=file, topology=Queue("more")) as broker:
        assert broker.topology == Topology(
            Queue("jobs", ordered=True),
            Topic("orders", Subscription("inventory", "order.*"), native={"kafka": {"partitions": 12}}),
            Topic("empty"),
            Queue("more"),
        )


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"queue": {}}, r"topology\.queue\b"),
        ({"queues": []}, r"topology\.queues"),
        ({"queues": {"jobs": True}}, r"topology\.queues\.jobs"),
        ({"queues": {"jobs": {"orderd": True}}}, "did you mean 'ordered'"),
        ({"queues": {"jobs": {"ordered": "perhaps"}}}, "ordered"),
        ({"queues": {"jobs": {"name": "other"}}}, "name"),
        ({"queues": {"jobs": {"native": "x"}}}, "native"),
        ({"queues": {"jobs": {"native": {"kafka": 1}}}}, r"native\.kafka"),
        ({"topics": {"t": 5}}, r"topology\.topics\.t"),
        ({"topics": {"t": {"subscription": {}}}}, "did you mean 'subscriptions'"),
        ({"topics": {"t": {"subscriptions": ["a"]}}}, "subscriptions"),
        ({"topics": {"t": {"subscriptions": {"a": "x.*"}}}}, r"subscriptions\.a"),
        ({"topics": {"t": {"subscriptions": {"a": {"group": "b"}}}}}, "group"),
        ({"topics": {"t": {"subscriptions": {"a": {"pattern": 5}}}}}, "pattern"),
        ({"topics": {"t": {"name": "u"}}}, "name"),
    ],
)
def test_wrong_tables_are_named(tables: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        read_topology(tables)


@pytest.mark.parametrize(
    "tables", [{"queues": {"a--b": {}}}, {"topics": {"t": {"subscriptions": {"a": {"pattern": "a*"}}}}}]
)
def test_wrong_names_and_patterns(tables: dict[str, Any]) -> None:
    with pytest.raises(TopologyError):
        read_topology(tables)
