"""A message as a record and back, whoever made the record."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Message as Record
from hypothesis import given
from hypothesis import strategies as st

from messaging.errors import InvalidMessage, MessageTooLarge
from messaging.message import Message
from messaging_kafka import records

Text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
Name = Text.filter(lambda name: name and "\0" not in name and not name.startswith(records.INTERNAL))


def record(
    value: bytes | None = b"body",
    key: bytes | None = None,
    headers: records.Headers | None = None,
    timestamp: tuple[int, int] = (1, 1_700_000_000_123),
) -> Any:
    return Record(
        topic="t",
        partition=3,
        offset=7,
        key=key,
        value=value,
        headers=headers,
        error=None,
        timestamp=timestamp,
        latency=0.0,
        leader_epoch=0,
    )


@given(
    body=st.binary(max_size=40),
    key=st.none() | Text,
    type=Text,
    headers=st.dictionaries(Name, Text, max_size=4),
    content_type=st.none() | Text.filter(bool),
    correlation_id=st.none() | Text.filter(bool),
    reply_to=st.none() | Text.filter(bool),
    expires_at=st.none() | st.floats(0, 4e9),
)
def test_a_message_comes_back_as_it_was(body: bytes, key: str | None, **fields: Any) -> None:
    sent = Message(body, key, id="the-id", timestamp=1_700_000_000.123, **fields)
    encoded = None if key is None else key.encode()
    assert records.to_message(record(body, encoded, records.to_headers(sent))) == sent


def test_a_record_of_another_program_is_a_message() -> None:
    message = records.to_message(record(None, b"\xffkey", None, (0, -1)))
    assert message == Message(b"", "\\xffkey", id="t-3-7", timestamp=0.0)


def test_headers_of_another_program() -> None:
    headers: records.Headers = [
        ("plain", b"text"),
        ("binary", b"\xff\x00"),
        ("null", None),
        ("twice", b"1"),
        ("twice", b"2"),
        (records.EXPIRES_AT, b"never"),
        (records.ID, b""),
        (records.INTERNAL + "unknown", b"hidden"),
    ]
    message = records.to_message(record(headers=headers))
    assert message.headers == {"plain": "text", "binary": "\\xff\x00", "null": "", "twice": "2"}
    assert (message.expires_at, message.id) == (None, "t-3-7")


@pytest.mark.parametrize(
    ("text", "attempts"), [(b"3", 3), (b"-1", 0), (b"1e3", 0), ("٣".encode(), 0), (b"9999999999", 0), (None, 0)]
)
def test_an_attempt_that_makes_no_sense_is_none(text: bytes | None, attempts: int) -> None:
    assert records.attempts_of(record(headers=[(records.ATTEMPT, text)])) == attempts


def test_a_due_time_that_makes_no_sense_is_none() -> None:
    assert records.due_of(record(headers=[(records.DUE, b"12.5")])) == 12.5
    assert records.due_of(record(headers=[(records.DUE, b"soon")])) == 0.0
    assert records.due_of(record()) == 0.0


def test_a_copy_has_the_headers_of_its_original_and_one_count() -> None:
    binary = [("binary", b"\xff"), ("twice", b"1"), ("twice", b"2")]
    first = record(headers=list(binary))
    once = records.copy_headers(first, 1, due=12.5, token="t1")
    assert once[:3] == binary
    twice = records.copy_headers(record(headers=once), 2)
    whose = [(records.ID, b"t-3-7"), (records.CONTENT_TYPE, b"")]
    assert twice == [*binary, *whose, (records.TIMESTAMP, b"1700000000123"), (records.ATTEMPT, b"2")]
    assert records.to_message(record(headers=twice)).content_type is None
    assert records.to_message(record(headers=twice, timestamp=(1, 1))).timestamp == 1_700_000_000.123
    assert records.token_of(record(headers=once)) == "t1"
    assert records.token_of(record(headers=twice)) is None


def test_sizes_are_checked_with_everything_a_record_holds() -> None:
    body = Message(b"x" * 1000, id="i")
    size = records.size_of(body)
    records.check_size(body, "t", size)
    with pytest.raises(MessageTooLarge, match="nothing was sent"):
        records.check_size(body, "t", size - 1)
    for larger in (Message(b"x" * 1000, "k" * 10, id="i"), Message(b"x" * 1000, headers={"h": "é"}, id="i")):
        with pytest.raises(MessageTooLarge):
            records.check_size(larger, "t", size)


def test_a_header_name_that_the_client_would_cut_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="NUL"):
        records.check_size(Message(b"", headers={"a\0b": "v"}, id="i"), "t", 1000)
