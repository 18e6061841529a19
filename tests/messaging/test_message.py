import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import messaging
from messaging.errors import InvalidMessage
from messaging.message import Message, check_message, id_factory

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def message(**fields: Any) -> Message:
    return Message(**{"body": b"x", "id": "1", "timestamp": 1.0, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"body": "text"},
        {"body": bytearray(b"x")},
        {"body": None},
        {"key": ""},
        {"key": 5},
        {"key": b"k"},
        {"key": "k" * 256},
        {"key": "é" * 128},
        {"key": "\ud800"},
        {"type": None},
        {"type": 5},
        {"type": "t" * 256},
        {"id": ""},
        {"id": None},
        {"id": "i" * 256},
        {"content_type": ""},
        {"correlation_id": ""},
        {"correlation_id": 7},
        {"reply_to": "\udfff"},
        {"headers": None},
        {"headers": [("a", "b")]},
        {"headers": "text"},
        {"headers": {"": "v"}},
        {"headers": {"a": None}},
        {"headers": {"a": 5}},
        {"headers": {"a": b"v"}},
        {"headers": {5: "v"}},
        {"headers": {"a": "\ud800"}},
        {"headers": {"\ud800": "a"}},
        {"headers": {"n" * 256: "v"}},
        {"headers": {"x-messaging-attempt": "5"}},
        {"headers": {"x-death": "5"}},
        {"timestamp": math.nan},
        {"timestamp": math.inf},
        {"timestamp": -1.0},
        {"timestamp": "now"},
        {"timestamp": 1_700_000_000_000},
        {"expires_at": math.nan},
        {"expires_at": math.inf},
    ],
    ids=repr,
)
def test_what_no_broker_could_carry_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match=r"publish to 'orders': .*nothing was sent"):
        check_message(message(**fields), "orders")


def test_what_every_broker_carries() -> None:
    check_message(message(), "orders")
    check_message(message(body=b"", key="k" * 255, type="é" * 127, headers={"a": ""}, timestamp=0), "orders")
    check_message(message(key=" \x00\x1f\x7f", headers={"a b/\\\"'\n": "\x00"}, reply_to="q", expires_at=5), "orders")


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, 1e12, "5"])
def test_ttl(ttl: Any) -> None:
    with pytest.raises(InvalidMessage):
        check_message(Message.of(b"x", ttl=ttl, id="1"), "orders")


def test_ttl_counts_from_the_timestamp() -> None:
    assert Message.of(b"x", ttl=5, timestamp=100.0).expires_at == 105.0
    with pytest.raises(InvalidMessage):
        Message.of(b"x", ttl=5, timestamp="100")


def test_ids_are_unique() -> None:
    one, two = id_factory(), id_factory()
    assert len({make() for make in (one, two) for _ in range(1000)}) == 2000


@given(
    body=st.binary(),
    headers=st.dictionaries(TEXT.filter(bool), TEXT, max_size=3),
    key=st.none() | TEXT.filter(bool),
    type=TEXT,
    correlation_id=st.none() | TEXT.filter(bool),
    timestamp=st.floats(0.001, 9e10),
)
def test_every_field_arrives_unchanged(body: bytes, **fields: Any) -> None:
    with messaging.connect("memory://", topology=messaging.Queue("jobs")) as broker:
        try:
            id = broker.publish("jobs", body, **fields)
        except InvalidMessage:  # too long, or a reserved header
            assert broker.depth("jobs") == 0
            return
        with broker.subscribe("jobs") as consumer:
            (delivery,) = consumer.receive(timeout=0)
        assert (delivery.body, delivery.id, delivery.attempt) == (body, id, 1)
        assert delivery.timestamp == pytest.approx(fields.pop("timestamp"), abs=0.001)
        assert {name: getattr(delivery, name) for name in fields} == fields
