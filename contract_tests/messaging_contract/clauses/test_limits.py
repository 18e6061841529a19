"""Size and other limits: checked before anything is sent, and what is within them arrives."""

from __future__ import annotations

import pytest

from messaging import InvalidMessage, MessageTooLarge, UnsupportedCapability
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, TOPIC, clause

MIB = 1024 * 1024


@clause(
    "limits.near-the-limit",
    "A message just below the broker's limit (1 MiB where it has none) arrives whole.",
    anchors=[111],
    on=QUEUE,
)
def test_near_the_limit(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    size = min(bench.able.max_message_bytes or MIB, 4 * MIB) - 2048
    ledger.publish_one(bench.broker, source.destination, ledger.message("x" * size))
    [delivery] = bench.take(consumer, ledger, ack=True)
    assert len(delivery.body) == size + 2
    ledger.check()


@clause(
    "limits.largest-in-every-place",
    "The largest message that can be published (1 MiB where that is over 2) is retried, dead-lettered and redriven "
    "whole; only what dead-lettering says of it may lack.",
    anchors=[82, 111],
    on=QUEUE,
    needs="dead_letter",
)
def test_largest_in_every_place(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    size = bench.able.max_message_bytes or MIB
    size = size if size <= 2 * MIB else MIB
    while True:  # down to what is left of the limit beside the rest of the message
        message = ledger.message(b"x" * size, headers={"h": "v" * 50})
        try:
            ledger.publish_one(bench.broker, source.destination, message)
            break
        except MessageTooLarge:
            del ledger.attempted[message.id]
            size -= 32
            assert size > 0, "no message is small enough"
    delivery = bench.one(consumer, ledger)
    if bench.able.nack_delay:
        delivery.nack(delay=bench.seconds(0.2))
        delivery = bench.one(consumer, ledger)
    delivery.reject("because " * 100)
    consumer.flush()
    with bench.dead_letters(source) as graveyard:  # it looks, and leaves it there
        dead = bench.one(graveyard, ledger.view("dead"))
        assert (dead.id, dead.body, dead.headers["h"]) == (message.id, message.body, "v" * 50)
    bench.redrive(source, 1)
    again = bench.one(consumer, ledger)
    assert (again.id, again.body, dict(again.headers)) == (message.id, message.body, dict(message.headers))
    again.ack()


@clause(
    "limits.large-to-a-topic",
    "A message of 200 kB arrives whole in every group of a topic (SNS takes 256 KiB, less than SQS).",
    anchors=[111],
    on=TOPIC,
)
def test_large_to_a_topic(bench: Bench) -> None:
    topic, ledger = bench.topic("one", "two"), bench.ledger()
    ledger.publish_one(bench.broker, topic, ledger.message("x" * 200_000))
    for group in ("one", "two"):
        view = ledger.view(group)
        [delivery] = bench.take(bench.consume(topic, group), view, ack=True)
        assert len(delivery.body) == 200_002
        view.check()


@clause(
    "limits.too-large",
    "A message above the broker's limit raises MessageTooLarge and nothing is sent; the producer goes on.",
    anchors=[111, 118],
    failures=[3],
)
def test_too_large(bench: Bench) -> None:
    limit = bench.able.max_message_bytes
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    if limit is not None:
        for message in (ledger.message(b"x" * (limit + 1)), ledger.message(headers={"h": "x" * (limit + 1)})):
            with pytest.raises(MessageTooLarge, match=source.destination.name):
                ledger.publish_one(bench.broker, source.destination, message)
        with pytest.raises(MessageTooLarge):
            bench.broker.publish_nowait(source.destination, ledger.message(b"x" * (limit + 1))).result(30)
    bench.quiet(consumer, ledger)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "limits.batch-checked-first",
    "In a batch sizes are checked before the first message is sent: one too large means nothing was sent.",
    anchors=[112],
    failures=[18],
)
def test_batch_checked_first(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    limit = bench.able.max_message_bytes
    wrong = ledger.message(key="x" * 300) if limit is None else ledger.message(b"x" * (limit + 1))
    with pytest.raises(InvalidMessage):
        ledger.publish(bench.broker, source.destination, [*ledger.messages(12), wrong])
    bench.quiet(consumer, ledger)
    assert bench.depth(source) == 0


@clause(
    "limits.short-texts",
    "Keys, types, ids, correlation ids and reply-to of 255 bytes arrive; of 256 they are refused, on every broker.",
    anchors=[113],
)
def test_short_texts(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    names = ("key", "type", "correlation_id", "reply_to", "id")
    text = "ä" * 127 + "x"
    longest = ledger.message(id="i" * 255, key=text, type=text, correlation_id=text, reply_to=text)
    ledger.publish_one(bench.broker, source.destination, longest)
    for name in names:
        with pytest.raises(InvalidMessage, match=name):
            bench.broker.publish(source.destination, 1, **{name: "x" * 256})  # type: ignore[arg-type]
    [delivery] = bench.take(consumer, ledger, ack=True)
    for name in names:
        assert getattr(delivery, name) == getattr(longest, name)
    bench.quiet(consumer, ledger)


@clause(
    "limits.delay-above-maximum",
    "A delay above the broker's maximum is refused before anything is sent; where there is none, a day is taken.",
    anchors=[95],
    on=QUEUE,
    needs="delayed_queue",
)
def test_delay_above_maximum(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    longest = bench.able.max_delay
    if longest is None:
        bench.broker.publish(source.destination, ledger.message(), delay=86_400)
    else:
        with pytest.raises((UnsupportedCapability, InvalidMessage)):
            bench.broker.publish(source.destination, ledger.message(), delay=longest + 1)
        with pytest.raises((UnsupportedCapability, InvalidMessage)):
            bench.broker.publish_many(source.destination, ledger.messages(2), delay=longest + 1)
        bench.broker.publish(source.destination, ledger.message(), delay=longest)
    bench.quiet(consumer, ledger)


@clause(
    "limits.many-keys",
    "Thousands of distinct keys are no burden.",
    anchors=[29],
    on=QUEUE,
)
def test_many_keys(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    count = bench.volume(2000)
    ledger.publish(bench.broker, source.destination, ledger.messages(count, keys=count))
    bench.take(consumer, ledger, ack=True)
    ledger.check()
