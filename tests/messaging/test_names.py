import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.errors import TopologyError
from messaging.names import check_name
from messaging.topology import Queue, Source, Subscription, Topic

NAMES = st.from_regex(r"[a-c0]{1,3}([._-][a-c0]{1,2}){0,2}", fullmatch=True)
SOURCES = NAMES.map(lambda name: Source(Queue(name))) | st.tuples(NAMES, NAMES).map(
    lambda pair: Source(Topic(pair[0], pair[1]), Subscription(pair[1]))
)


@given(SOURCES, SOURCES)
def test_derived_names_never_collide(one: Source, two: Source) -> None:
    same = (one.destination.name, one.subscription) == (two.destination.name, two.subscription)
    assert (one.name == two.name) is same
    assert one.dead_letter is not None
    assert two.dead_letter is not None
    assert (one.dead_letter.name == two.dead_letter.name) is same
    assert one.dead_letter.name != two.name


@pytest.mark.parametrize("name", ["a", "orders", "order-events.v1_x", "A" * 80, "0"])
def test_portable(name: str) -> None:
    assert check_name(name, "queue") == name


@pytest.mark.parametrize(
    "name",
    ["", "a--b", "-a", "a-", "a..b", "a b", "a/b", "é", "a\n", "A" * 81, "dlq", "retry", "delay", None, 5, "a._b"],
)
def test_not_portable(name: object) -> None:
    with pytest.raises(TopologyError):
        check_name(name, "queue")  # type: ignore[arg-type]
    for make in (Queue, Subscription, Topic):
        with pytest.raises(TopologyError):
            make(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["--dlq", "!--dlq", "a--b--c--dlq", "a--dlq--dlq", "a b--dlq", "dlq--dlq"])
def test_dead_letter_queue_names_are_checked_too(name: str) -> None:
    with pytest.raises(TopologyError):
        Queue(name)


def test_dead_letter_queues_can_be_named() -> None:
    assert Queue("jobs--dlq").name == "jobs--dlq"
    assert Queue("orders--inventory--dlq").name == "orders--inventory--dlq"
