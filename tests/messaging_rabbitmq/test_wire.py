from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal

import pika
import pytest
from pika import frame

from messaging.errors import InvalidMessage
from messaging.message import Message
from messaging_rabbitmq import wire


def decoded(data: bytes) -> list[frame.Frame]:
    frames = []
    while data:
        used, one = frame.decode_frame(data)
        assert one is not None
        frames.append(one)
        data = data[used:]
    return frames


def test_pika_reads_the_publish_frame() -> None:
    [method] = decoded(wire.publish_frame(3, "exchange", "key"))
    assert (method.method.exchange, method.method.routing_key, method.method.mandatory) == ("exchange", "key", True)


def test_pika_reads_every_property() -> None:
    sent = Message(b"x", content_type="c", id="i", correlation_id="co", reply_to="r", type="t", timestamp=12.5)
    properties = decoded(wire.content_frames(sent, 0, 3, 4096))[0].properties
    assert (properties.content_type, properties.correlation_id, properties.reply_to) == ("c", "co", "r")
    assert (properties.message_id, properties.type, properties.timestamp, properties.delivery_mode) == ("i", "t", 12, 2)


def test_properties_have_to_fit_in_one_frame() -> None:
    with pytest.raises(InvalidMessage):
        wire.content_frames(Message(b"", id="i", headers={"h": "x" * 100}), 0, 3, 128)


def test_content_survives_both_decoders() -> None:
    sent = Message(b"x" * 1000, key="k", type="t", headers={"h": "ü"}, id="i", timestamp=12.5, expires_at=20.0)
    header, *bodies = decoded(wire.content_frames(sent, 4, 3, 400))
    assert b"".join(body.fragment for body in bodies) == sent.body
    assert len(bodies) == 3
    properties = header.properties
    assert (properties.message_id, properties.type, properties.timestamp, properties.delivery_mode) == ("i", "t", 12, 2)
    assert properties.headers["h"] == "ü".encode() or properties.headers["h"] == "ü"
    payload = header.marshal()[7 + 12 : -1]
    own = wire.decode_properties(payload)
    assert wire.visible_headers(own.headers) == {"h": "ü"}
    assert wire.whole(own.headers[wire.ATTEMPT]) == 4
    assert wire.whole(own.headers[wire.EXPIRES]) == 20_000
    assert wire.text(own.headers[wire.KEY]) == "k"


def test_every_type_of_a_foreign_table_becomes_text() -> None:
    headers = {
        "none": None,
        "yes": True,
        "int": -1,
        "long": 2**40,
        "decimal": Decimal("1.25"),
        "time": datetime(2020, 1, 1, tzinfo=UTC),
        "bytes": b"\xff\x00",
        "list": [1, [None], "x"],
        "table": {"a": {"b": True}},
    }
    data = b"".join(pika.BasicProperties(headers=headers).encode())
    visible = wire.visible_headers(wire.decode_properties(data).headers)
    assert set(visible) == set(headers)
    assert all(isinstance(value, str) for value in visible.values())
    assert visible["bytes"] == "\\xff\x00"
    assert visible["decimal"] == "1.25"


def table(fields: bytes) -> bytes:
    return struct.pack(">HI", 0x2000, len(fields)) + fields


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"t\x01", True),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xff", -1),
        (b"u\xff\xff", 65535),
        (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1),
        (b"l" + b"\xff" * 8, -1),
        (b"L" + b"\xff" * 8, -1),
        (b"f" + struct.pack(">f", 0.5), 0.5),
        (b"d" + struct.pack(">d", 0.5), 0.5),
        (b"D\x02" + struct.pack(">i", 125), Decimal("1.25")),
        (b"T" + struct.pack(">Q", 9), 9),
        (b"V", None),
        (b"x\x00\x00\x00\x01z", b"z"),
        (b"S\x00\x00\x00\x01z", b"z"),
        (b"A\x00\x00\x00\x02t\x01", [True]),
        (b"F\x00\x00\x00\x04\x01at\x01", {"a": True}),
    ],
)
def test_each_type_and_what_follows_it(field: bytes, value: object) -> None:
    headers = wire.decode_properties(table(b"\x01n" + field + b"\x01zV")).headers
    assert headers == {"n": value, "z": None}


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_cut_properties_never_raise(cut: int) -> None:
    data = b"".join(pika.BasicProperties(headers={"a": [1, {"b": "c"}]}, message_id="m", type="t" * 50).encode())
    wire.decode_properties(data[:cut])


def test_an_unknown_type_hides_only_what_follows() -> None:
    assert wire.decode_properties(table(b"\x01aV\x01b?\x00\x01cV")).headers == {"a": None}


@pytest.mark.parametrize(
    "header", ["CC", "BCC", "x-death", "x-delivery-count", "x-first-death-queue", "x-last-death-reason"]
)
def test_names_the_broker_would_act_on_are_escaped(header: str) -> None:
    data = wire.content_frames(Message(b"", headers={header: "v"}, id="i"), 0, 1, 4096)
    properties = decoded(data)[0].properties
    assert header not in properties.headers
    assert wire.visible_headers(properties.headers) == {header: "v"}
