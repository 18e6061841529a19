"""What travels beside the body, and the body itself: it arrives exactly as sent, or publish refuses it."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from messaging import Codec, DecodeError, EncodeError, InvalidMessage, Message, register_codec
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.ledger import TEST_ID, Ledger

HELD = ("body", "key", "type", "id", "content_type", "correlation_id", "reply_to")


@clause("headers.round-trip", "Headers arrive exactly as sent, and nothing is added to them.", anchors=[97, 107])
def test_round_trip(bench: Bench) -> None:
    headers = {"a": "1", "A": "upper case", "with-dash": "x", "with.dot": "y", "with_underscore": "z", "empty": ""}
    _exact(bench, [{"headers": headers}, {}])


@clause("headers.unicode", "Text outside ASCII survives in headers, keys, types and ids.", anchors=[98])
def test_unicode(bench: Bench) -> None:
    text = "Grüße, Ελλάδα, 日本, 🚀"
    _exact(bench, [{"headers": {"h": text}, "key": text, "type": "größe.日本", "correlation_id": text}])


@clause(
    "headers.odd-values",
    "Slashes, quotes, backslashes, braces, spaces and digits survive in headers and keys.",
    anchors=[99],
)
def test_odd_values(bench: Bench) -> None:
    odd = "/ \\ \" ' {} [] <> & = ; : , % # ? @ ` ~ | 0 "
    _exact(bench, [{"headers": {"1odd": odd, "slash/name": "x", "sp ace": "y"}, "key": odd, "correlation_id": odd}])


@clause(
    "headers.control-characters",
    "Control characters arrive unchanged or publish refuses them with InvalidMessage; they are never altered.",
    anchors=[99, 113],
)
def test_control_characters(bench: Bench) -> None:
    every = "".join(map(chr, range(128)))
    _exact(
        bench,
        [
            {"headers": {"h": every}},
            {"headers": {"h": "a\nb\r\nc\td"}},
            {"headers": {"h": "\x00"}},
            {"headers": {"h": "\ufffe\uffff\x0b"}},
            {"key": "a\x00b"},
            {"key": "\x1f"},
            {"headers": {"na\x01me": "x"}},
            {"type": "a\x02b"},
        ],
        may_refuse=True,
    )


@clause(
    "headers.control-characters-in-text",
    "A text body with any character arrives unchanged, whatever the broker's character set.",
    anchors=[101, 113],
)
def test_control_characters_in_text(bench: Bench) -> None:
    every = "".join(map(chr, range(0x250))) + "\ufffd\ufffe\uffff🚀"
    _exact(bench, [{"value": every}, {"value": every.encode(), "content_type": "text/plain"}])


@clause(
    "headers.invalid-refused",
    "What cannot be a header, key or id is refused with InvalidMessage before anything is sent.",
    anchors=[100, 108],
)
def test_invalid_refused(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    wrong: list[dict[str, Any]] = [
        {"headers": {"h": 1}},
        {"headers": {"h": None}},
        {"headers": {1: "x"}},
        {"headers": {"": "x"}},
        {"headers": {"h": b"bytes"}},
        {"headers": {"h": "\ud800"}},
        {"headers": {"x-messaging-mine": "x"}},
        {"key": "\udfff"},
        {"key": ""},
        {"key": 7},
        {"id": 7},
        {"type": "x" * 256},
        {"correlation_id": ""},
    ]
    for fields in wrong:
        fields["headers"] = {TEST_ID: bench.test_id, **fields.get("headers", {})}
        with pytest.raises(InvalidMessage):
            bench.broker.publish(source.destination, 1, **fields)
        with pytest.raises(InvalidMessage):
            bench.broker.publish_many(source.destination, [Message.of(1, **fields)])
    bench.quiet(consumer, ledger)


@clause("headers.any-bytes", "A body of any bytes arrives byte for byte.", anchors=[101])
def test_any_bytes(bench: Bench) -> None:
    bodies = [bytes(range(256)) * 3, b"\x00", b"\xff\xfe", b"plain", b"{not json", "日本".encode(), b" spaces \r\n"]
    _exact(bench, [{"value": body} for body in bodies])


@clause(
    "headers.typed-values",
    "Values of every JSON type, dates and dataclasses arrive as equal values.",
    anchors=[102],
    on=QUEUE,
)
def test_typed_values(bench: Bench) -> None:
    values: list[Any] = ["text", "", 1, -1.5, 2**53, True, False, None, [1, "a", None], {"a": {"b": [1]}}, {}, []]
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    messages = [ledger.message(value) for value in values]
    sent = {message.id: value for message, value in zip(messages, values, strict=True)}
    ledger.publish(bench.broker, source.destination, messages)
    for delivery in bench.take(consumer, ledger, ack=True):
        assert delivery.value == sent[delivery.id]
        assert type(delivery.value) is type(sent[delivery.id])
    ledger.check()


@dataclass
class Order:
    """A payload."""

    number: int
    placed: datetime


class Item(msgspec.Struct):
    """A payload."""

    name: str
    price: float = 0.0


@clause(
    "headers.as-type",
    "Dataclasses and structs are encoded, and decoded to the type the consumer asks for.",
    anchors=[102],
    on=QUEUE,
)
def test_as_type(bench: Bench) -> None:
    values: list[Any] = [Order(7, datetime(2026, 11, 24, 4, 0, tzinfo=UTC)), Item("käse", 2.5)]
    for value in values:
        source, ledger = bench.source(), bench.ledger()
        consumer = bench.consume(source, as_type=type(value))
        ledger.publish_one(bench.broker, source.destination, ledger.message(value))
        delivery = bench.one(consumer, ledger)
        assert delivery.value == value
        delivery.ack()


@clause(
    "headers.content-type",
    "The content type arrives as given and chooses how the body is decoded; one nobody knows leaves the bytes alone.",
    anchors=[103],
)
def test_content_type(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    sent = {
        "text/plain; charset=utf-8": ("Grüße", "Grüße"),
        "application/json": ([1, 2], [1, 2]),
        "application/octet-stream": (b"\x00\x01", b"\x00\x01"),
    }
    messages = [ledger.message(value, content_type=kind) for kind, (value, _) in sent.items()]
    unknown = ledger.message(b"<order/>", content_type="application/x-unknown")
    ledger.publish(bench.broker, source.destination, [*messages, unknown])
    for delivery in bench.take(consumer, ledger, ack=True):
        if delivery.id == unknown.id:
            assert delivery.content_type == "application/x-unknown"
            assert delivery.body == b"<order/>"
            with pytest.raises(DecodeError):
                _ = delivery.value
        else:
            assert delivery.value == sent[delivery.content_type or ""][1]
    ledger.check()


@clause(
    "headers.own-codec",
    "A codec registered for a content type is used on both sides, one that compresses for example.",
    anchors=[103, 110],
    on=QUEUE,
)
def test_own_codec(bench: Bench) -> None:
    kind = f"application/x-{bench.test_id}"
    with pytest.raises(EncodeError):
        bench.broker.publish(bench.queue(), {"a": 1}, content_type=kind)
    register_codec(
        kind,
        Codec(
            lambda value: zlib.compress(msgspec.json.encode(value)),
            lambda body, _type: msgspec.json.decode(zlib.decompress(body)),
        ),
    )
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message({"a": "x" * 5000}, content_type=kind))
    delivery = bench.one(consumer, ledger)
    assert delivery.value == {"a": "x" * 5000}
    assert len(delivery.body) < 1000
    delivery.ack()


@clause(
    "headers.id",
    "An id is kept when given, and made when left out: unique, and the one publish returned.",
    anchors=[104],
)
def test_id(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    headers = {TEST_ID: bench.test_id}
    made = [bench.broker.publish(source.destination, n, headers=headers) for n in range(5)]
    given = bench.broker.publish(source.destination, 5, headers=headers, id="urn:given/1")
    assert given == "urn:given/1"
    assert len(set(made)) == 5
    assert {delivery.id for delivery in bench.take(consumer, ledger, 6, ack=True)} == {*made, given}


@clause(
    "headers.fields",
    "Key, type, correlation id, reply-to and timestamp arrive as given; those left out arrive as absent.",
    anchors=[105],
)
def test_fields(bench: Bench) -> None:
    stamp = 1_700_000_000.123
    full = {"key": "k", "type": "order.placed", "correlation_id": "c-1", "reply_to": "replies", "timestamp": stamp}
    deliveries = _exact(bench, [full, {}])
    [first] = [d for d in deliveries if d.key]
    [bare] = [d for d in deliveries if not d.key]
    assert abs(first.timestamp - stamp) < 0.002
    assert (bare.key, bare.type, bare.correlation_id, bare.reply_to) == (None, "", None, None)
    assert abs(bare.timestamp - time.time()) < 120


@clause("headers.trace-context", "traceparent, tracestate and baggage arrive unchanged.", anchors=[106], on=QUEUE)
def test_trace_context(bench: Bench) -> None:
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
        "baggage": "userId=alice,serverNode=DF%2028,isProduction=false",
    }
    _exact(bench, [{"headers": headers}])


@clause(
    "headers.nothing-leaks",
    "Headers of the adapter's own never reach the receiver, not even after a redelivery.",
    anchors=[107],
)
def test_nothing_leaks(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    message = ledger.message(key="k", type="t", ttl=600, correlation_id="c", headers={"mine": "1"})
    ledger.publish_one(bench.broker, source.destination, message)
    for attempt in (1, 2, 3):
        delivery = bench.one(consumer, ledger)
        assert dict(delivery.headers) == dict(message.headers)
        assert delivery.attempt == attempt
        delivery.nack(0.1 if attempt == 1 and bench.able.nack_delay else 0)
    bench.one(consumer, ledger).ack()


@clause(
    "headers.decode-error",
    "A body that is not what the codec expects raises DecodeError at value only; the consumer goes on.",
    anchors=[85, 109],
    failures=[24],
)
def test_decode_error(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    broken = ledger.message(b"{broken", content_type="application/json")
    ledger.publish(bench.broker, source.destination, [broken, ledger.message({"fine": 1})])
    for delivery in bench.take(consumer, ledger):
        if delivery.id == broken.id:
            with pytest.raises(DecodeError):
                _ = delivery.value
            assert delivery.body == b"{broken"
        else:
            assert delivery.value == {"fine": 1}
        delivery.ack()
    ledger.check()


@clause(
    "headers.many",
    "More headers than a broker has room for as attributes (SQS: 10) arrive all the same.",
    anchors=[114],
)
def test_many(bench: Bench) -> None:
    _exact(bench, [{"headers": {f"header-{n}": f"value {n}" for n in range(40)}, "key": "k", "type": "t"}])


@clause(
    "headers.long-value",
    "A header value of several kilobytes arrives unchanged.",
    anchors=[97],
)
def test_long_value(bench: Bench) -> None:
    _exact(bench, [{"headers": {"long": "ä" * 4000, "n" * 200: "long name"}}])


def _exact(bench: Bench, several: list[dict[str, Any]], may_refuse: bool = False) -> list[Any]:
    """Publishes one message of each, and asserts that each arrives exactly as sent."""
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    for fields in several:
        message = ledger.message(**fields)
        try:
            ledger.publish_one(bench.broker, source.destination, message)
        except InvalidMessage:
            if not may_refuse:
                raise
    deliveries = bench.take(consumer, ledger, ack=True)
    for delivery in deliveries:
        _same(ledger, delivery)
    ledger.check()
    return deliveries


def _same(ledger: Ledger, delivery: Any) -> None:
    sent = ledger.attempted[delivery.id]
    for name in HELD:
        assert getattr(delivery, name) == getattr(sent, name), f"{name} of {delivery.id}"
    assert dict(delivery.headers) == dict(sent.headers)
