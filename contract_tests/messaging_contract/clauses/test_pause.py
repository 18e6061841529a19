"""A consumer that pauses: nothing comes, nothing is lost, and it goes on where it was."""

from __future__ import annotations

from threading import Thread

from messaging_contract.bench import Bench
from messaging_contract.clause import clause


@clause(
    "receive.hold-pause-resume",
    "A consumer that holds all it may, pauses, settles and resumes gets the rest.",
    anchors=[30],
)
def test_hold_pause_resume(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, prefetch=5)
    ledger.publish(bench.broker, source.destination, ledger.messages(15))
    held = bench.take(consumer, ledger, 5)
    consumer.pause()
    assert consumer.paused
    consumer.ack(held)
    bench.quiet(consumer, ledger)
    consumer.resume()
    assert not consumer.paused
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "receive.prefetch-through-pause",
    "A consumer that is paused and resumed while it holds messages still gets no more than its prefetch.",
    anchors=[27, 30],
)
def test_prefetch_through_pause(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, prefetch=3)
    ledger.publish(bench.broker, source.destination, ledger.messages(10))
    held = bench.take(consumer, ledger, 3)
    for _ in range(2):
        consumer.pause()
        consumer.resume()
    bench.quiet(consumer, ledger)
    held.pop().ack()
    held += bench.take(consumer, ledger, 1)
    bench.quiet(consumer, ledger)
    consumer.ack(held)
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "receive.pause",
    "While a consumer is paused nothing is delivered to it; after resume everything is.",
    anchors=[30],
)
def test_pause(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    consumer.pause()
    consumer.pause()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.quiet(consumer, ledger)
    consumer.resume()
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "receive.pause-while-iterating",
    "A loop over a consumer hands out nothing after pause, not even what was taken already, and goes on after resume.",
    anchors=[26, 30],
)
def test_pause_while_iterating(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(6))

    def loop() -> None:
        for delivery in consumer:
            delivery.ack()
            ledger.receive([delivery])
            if len(ledger.received) == 2:
                consumer.pause()

    looping = Thread(target=loop, daemon=True)
    looping.start()
    bench.eventually(lambda: consumer.paused, "the loop to pause")
    bench.quiet(consumer, ledger)
    assert len(ledger.received) == 2
    consumer.resume()
    bench.eventually(lambda: not ledger.missing, "the loop to go on")
    consumer.close()
    looping.join(bench.patience)
    assert not looping.is_alive()
    ledger.check()
