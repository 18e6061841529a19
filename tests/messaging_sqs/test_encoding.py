"""Every message survives the wire, within what SQS takes."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from messaging.message import Message
from messaging_sqs.encoding import ENVELOPE, TYPE, decode, encode

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NAMES = TEXT.filter(lambda name: name and not name.startswith("x-messaging-"))
NICE = st.from_regex(r"[a-z]{1,8}(-[a-z]{1,8})?", fullmatch=True)
MESSAGES = st.builds(
    Message,
    body=st.binary(max_size=200) | TEXT.map(str.encode),
    key=st.none() | NAMES,
    type=TEXT,
    headers=st.dictionaries(NAMES | NICE, TEXT | NICE, max_size=14),
    id=NAMES,
    content_type=st.none() | NAMES,
    timestamp=st.integers(0, 4102444800000).map(lambda ms: ms / 1000),
    correlation_id=st.none() | NAMES,
    reply_to=st.none() | NAMES,
    expires_at=st.none() | st.integers(0, 4102444800000).map(lambda ms: ms / 1000),
)
XML = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


def arrived(message: Message) -> Message:
    encoded = encode(message)
    return decode({"MessageId": "m", "Body": encoded.body, "MessageAttributes": encoded.attributes})


@given(MESSAGES)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert arrived(message) == message


@given(MESSAGES)
def test_an_entry_is_what_sqs_takes(message: Message) -> None:
    encoded = encode(message)
    assert XML.fullmatch(encoded.body)
    assert 1 <= len(encoded.attributes) <= 10
    size = len(encoded.body.encode())
    for name, attribute in encoded.attributes.items():
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,256}", name)
        assert not name.startswith(".")
        assert not name.endswith(".")
        assert ".." not in name
        assert not name.lower().startswith(("aws.", "amazon."))
        assert XML.fullmatch(attribute["StringValue"])
        size += len(name) + len("String") + len(attribute["StringValue"].encode())
    assert encoded.size == size


def test_headers_are_attributes_while_they_fit() -> None:
    eight = {f"h{n}": "v" for n in range(8)}
    assert set(encode(Message(b"x", type="t", headers=eight)).attributes) == {*eight, TYPE, ENVELOPE}
    nine = {**eight, "h8": "v"}
    assert set(encode(Message(b"x", type="t", headers=nine)).attributes) == {TYPE, ENVELOPE}
    assert set(encode(Message(b"x", headers=nine)).attributes) == {*nine, ENVELOPE}


def test_a_header_called_like_our_own_attributes_is_kept() -> None:
    message = Message(b"x", type="order.placed", headers={"type": "other", "x-messaging": "{}"}, id="1")
    assert arrived(message) == message


def test_readable_bodies_stay_readable_and_others_are_base64() -> None:
    assert encode(Message('{"é": 1}\n'.encode())).body == '{"é": 1}\n'
    assert encode(Message(b"\x00\x01")).body == "AAE="
    assert encode(Message(b"")).body == "-"


def test_a_foreign_message_arrives_as_is() -> None:
    message = decode(
        {
            "MessageId": "abc",
            "Body": "plain",
            "Attributes": {"SentTimestamp": "1700000000123", "MessageGroupId": "g"},
            "MessageAttributes": {
                "n": {"DataType": "Number", "StringValue": "12"},
                "b": {"DataType": "Binary", "BinaryValue": b"\xff!"},
                "type": {"DataType": "String", "StringValue": "a.b"},
            },
        }
    )
    assert message == Message(
        b"plain", key="g", type="a.b", headers={"n": "12", "b": "\\xff!"}, id="abc", timestamp=1700000000.123
    )


@given(TEXT)
def test_an_attribute_that_only_looks_like_ours_breaks_nothing(text: str) -> None:
    attribute = {"DataType": "String", "StringValue": text}
    assert decode({"MessageId": "m", "Body": "b", "MessageAttributes": {ENVELOPE: attribute}}).body == b"b"


def test_a_broken_base64_body_arrives_as_text() -> None:
    envelope = {"DataType": "String", "StringValue": '{"id":"1","base64":true}'}
    assert decode({"MessageId": "m", "Body": "not base64!", "MessageAttributes": {ENVELOPE: envelope}}).body == (
        b"not base64!"
    )
