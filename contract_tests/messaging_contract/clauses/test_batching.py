"""Batches: sent and received whole, cut up where the broker's are smaller."""

from __future__ import annotations

from messaging_contract.bench import Bench
from messaging_contract.clause import clause


@clause(
    "batching.chunked",
    "A batch larger than the broker's own (SQS: 10) is cut up and arrives whole.",
    anchors=[115, 116],
)
def test_chunked(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(bench.volume(137)))
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "batching.chunked-by-size",
    "A batch whose bytes exceed what the broker takes at once is cut up and arrives whole.",
    anchors=[116, 118],
)
def test_chunked_by_size(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, [ledger.message("x" * 120_000) for _ in range(12)])
    deliveries = bench.take(consumer, ledger, ack=True)
    assert all(len(delivery.value) == 120_000 for delivery in deliveries)
    ledger.check()


@clause(
    "batching.acks-chunked",
    "Acking more messages at once than the broker takes in one call acks them all.",
    anchors=[119],
    failures=[18],
)
def test_acks_chunked(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(bench.volume(55)))
    consumer.ack(bench.take(consumer, ledger))
    consumer.flush()
    consumer.close()
    bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "batching.keeps-order",
    "A batch to an ordered destination keeps the order of each key, also across its chunks.",
    anchors=[62, 116],
    needs="ordering",
)
def test_keeps_order(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(35, keys=2))
    bench.take(consumer, ledger, ack=True)
    ledger.check(ordered=True)


@clause(
    "batching.mixed-sizes",
    "Small and large messages in one batch arrive whole.",
    anchors=[115, 116],
)
def test_mixed_sizes(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    sizes = [1, 200_000, 10, 150_000, 100_000, 5, 180_000]
    ledger.publish(bench.broker, source.destination, [ledger.message("y" * size) for size in sizes])
    received = bench.take(consumer, ledger, ack=True)
    assert sorted(len(delivery.value) for delivery in received) == sorted(sizes)
    ledger.check()


@clause(
    "batching.many-messages",
    "In quiet conditions each of many messages arrives exactly once.",
    anchors=[29, 161],
)
def test_many_messages(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(bench.volume(2000)))
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    consumer.close()
    bench.quiet(bench.consume(source), ledger)
    ledger.check()
