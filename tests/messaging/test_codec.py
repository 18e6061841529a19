import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.codec import BYTES, JSON, TEXT, Codec, decode, encode, register_codec
from messaging.errors import ConfigurationError, DecodeError, EncodeError, InvalidMessage

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    id: int
    at: datetime
    colour: Colour = Colour.RED
    note: str | None = None


class Line(msgspec.Struct):
    sku: str
    price: Decimal


class Customer(pydantic.BaseModel):
    name: str
    born: date | None = None


@given(JSON_VALUES)
def test_json_round_trip(value: Any) -> None:
    assert decode(*encode(value)) == value


@given(st.binary())
def test_bytes_pass_through(body: bytes) -> None:
    assert encode(body) == (body, BYTES)
    assert decode(*encode(body)) == body
    assert decode(body, None) == body


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_round_trip(text: str) -> None:
    body, content_type = encode(text, TEXT)
    assert decode(body, content_type) == text
    assert decode(body, content_type, str) == text


@pytest.mark.parametrize("make", [bytearray, memoryview, lambda b: memoryview(b * 2)[::2]])
@pytest.mark.parametrize("content_type", [None, JSON, "application/x-unknown"])
def test_other_bytes_are_bytes_whatever_the_content_type(make: Any, content_type: str | None) -> None:
    body, said = encode(make(b"{}"), content_type)
    assert type(body) is bytes
    assert len(body) == 2
    assert said == (content_type or BYTES)


def test_a_buffer_is_copied() -> None:
    buffer = bytearray(b"before")
    body, _ = encode(buffer)
    buffer[:] = b"after!"
    assert body == b"before"


def test_a_released_memoryview_is_refused() -> None:
    view = memoryview(b"x")
    view.release()
    with pytest.raises(EncodeError, match="released"):
        encode(view)


NOW = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "as_type"),
    [
        (Order(7, NOW), Order),
        (Order(7, NOW, note="null"), Order),
        ([Order(1, NOW), Order(2, NOW)], list[Order]),
        (Line("a", Decimal("1.10")), Line),
        (Customer(name="x", born=date(2000, 1, 1)), Customer),
        ([Customer(name="x")], list[Customer]),
        ({"a": Customer(name="x")}, dict[str, Customer]),
        (NOW, datetime),
        (uuid4(), UUID),
        ({"raw": b"\x00\xff"}, dict[str, bytes]),
        ((1, "a"), tuple[int, str]),
        (2**70, int),
        (-(10**30), int),
        (None, type(None)),
        (None, int | None),
    ],
)
def test_typed_round_trip(value: Any, as_type: Any) -> None:
    assert decode(*encode(value), as_type) == value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        {"deep": [1, {"x": math.nan}], "y": None},
        [None, math.inf],
        Order(1, NOW, note=math.nan),  # type: ignore[arg-type]
        object(),
        {(1, 2): 3},
        "\ud800",
        {"a": "\udfff"},
        [lambda: None],
        Customer,
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(EncodeError, match=r"cannot be encoded as application/json"):
        encode(value)


def test_nan_in_a_pydantic_model_is_refused() -> None:
    class Reading(pydantic.BaseModel):
        value: float

    assert decode(*encode(Reading(value=1.5)), Reading) == Reading(value=1.5)
    with pytest.raises(EncodeError, match="NaN"):
        encode(Reading(value=math.nan))


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(EncodeError):
        encode(value)


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"\xff", b"1 2", b'"\\ud800"', b"\x00", b"[" * 100_000])
def test_a_body_that_is_not_json(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(body, JSON)
    assert decode(body, JSON, bytes) == body


def test_a_body_of_another_shape() -> None:
    with pytest.raises(DecodeError, match="Order"):
        decode(b'{"id": "x"}', JSON, Order)
    with pytest.raises(DecodeError, match="Customer"):
        decode(b"{}", JSON, Customer)
    with pytest.raises(DecodeError):
        decode(b"[{}]", JSON, list[Customer])


def test_content_types() -> None:
    assert decode(b"[1]", "Application/JSON; charset=UTF-8") == [1]
    assert decode(b"[1]", None, list[int]) == [1]
    assert decode(b"[1]", BYTES, list[int]) == [1]
    assert decode(b"x", "text/plain; charset=us-ascii") == "x"
    with pytest.raises(DecodeError, match="register_codec"):
        decode(b"x", "application/x-unknown")
    assert decode(b"x", "application/x-unknown", bytes) == b"x"
    with pytest.raises(EncodeError, match="register_codec"):
        encode({}, "application/x-unknown")
    with pytest.raises(EncodeError):
        encode("text", BYTES)
    with pytest.raises(EncodeError):
        encode({}, TEXT)
    with pytest.raises(InvalidMessage):
        encode({}, 5)  # type: ignore[arg-type]


def test_another_charset_is_not_guessed() -> None:
    with pytest.raises(EncodeError, match="UTF-8"):
        encode("é", "text/plain; charset=iso-8859-1")
    with pytest.raises(DecodeError, match="UTF-8"):
        decode("é".encode("latin-1"), 'text/plain; charset="iso-8859-1"')


def test_registered_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.codec._codecs", {})
    register_codec("Text/Upper", Codec(lambda v: v.upper().encode(), lambda body, _type: body.decode().lower()))
    assert encode("abc", "text/upper") == (b"ABC", "text/upper")
    assert decode(b"ABC", "text/upper; x=y") == "abc"
    with pytest.raises(ConfigurationError, match="already"):
        register_codec("text/upper", Codec(bytes, lambda body, _type: body))
