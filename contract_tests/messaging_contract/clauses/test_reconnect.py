"""What happens around a lost connection: the first publish after it, subscribing and closing while it is lost."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

from messaging import Broker, BrokerUnavailable, Consumer, PublishTimeout, Subscription
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import TOPIC, clause
from messaging_contract.ledger import Ledger


def _recovery(bench: Bench) -> float:
    return 2 * bench.patience


def _short_leases(bench: Bench) -> dict[str, Any]:
    return {"lease": 2.0} if bench.able.lease else {}


@clause(
    "faults.first-publish-after-a-drop",
    "The first publish after an idle connection was dropped is stored when it returns, and is not there when not.",
    anchors=[19, 142, 147],
    failures=[2],
    controls="link",
    deadline=150,
)
def test_first_publish_after_a_drop(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    ledger.publish_one(broker, source.destination, ledger.message())
    for number in range(4):
        link.cut()
        link.resume()
        # Not one message between the drop and this, so nobody had a reason to notice.
        with suppress(PublishTimeout, BrokerUnavailable):
            if number % 2:
                ledger.publish_one(broker, source.destination, ledger.message(), timeout=bench.patience)
            else:
                ledger.publish(broker, source.destination, ledger.messages(3), timeout=bench.patience)
    bench.eventually(lambda: _publishes(broker, source, ledger), "the producer to come back", _recovery(bench))
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.subscribe-during-an-outage",
    "Subscribing while the broker is gone raises BrokerUnavailable in bounded time, or the consumer comes alive later.",
    anchors=[141],
    failures=[26],
    controls="link",
    deadline=240,
)
def test_subscribe_during_an_outage(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination, connect_timeout=5.0))
    for kind in (link.cut, link.blackhole):
        kind()
        started = time.monotonic()
        consumer: Consumer | None = None
        with suppress(BrokerUnavailable):
            consumer = bench.consume(source, broker=broker, **_short_leases(bench))
        assert time.monotonic() - started < 40, f"subscribe took {time.monotonic() - started:.0f} s"
        link.resume()
        if consumer is None:

            def subscribed() -> bool:
                nonlocal consumer
                with suppress(BrokerUnavailable):
                    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
                return consumer is not None

            bench.eventually(subscribed, "the same call to work again", _recovery(bench))
        assert consumer is not None
        ledger.publish(bench.broker, source.destination, ledger.messages(3))
        bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))
        consumer.close()
        ledger.check(duplicates=True)


@clause(
    "faults.no-return-after-close",
    "A broker closed while it tries to reconnect stays closed: no thread is left, no error is logged, nobody consumes.",
    anchors=[134, 159],
    failures=[28],
    controls="link",
    deadline=240,
)
def test_no_return_after_close(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    before = set(threading.enumerate())
    broker = link.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    link.cut()
    if bench.kind == "topic":  # in the middle of it; on a queue at its very beginning
        bench.receive(consumer, 1, 0.4)
    left = set(threading.enumerate()) - before
    broker.close()
    with _Errors(left) as errors:  # the other clients may say that the broker is gone; this one may not any more
        _ended(bench, left)
        link.resume()
    assert not errors.texts, f"logged after close: {errors.texts[0]}"
    ledger.publish(bench.broker, source.destination, ledger.messages(2))
    with bench.consume(source) as other:
        bench.take(other, ledger, ack=True, timeout=_recovery(bench))
    ledger.check(duplicates=True)


@clause(
    "faults.pattern-after-a-cut",
    "After a reconnect a subscription still takes what fits its pattern, and nothing else.",
    anchors=[34, 142],
    failures=[27],
    on=TOPIC,
    needs="patterns",
    controls="link",
    deadline=150,
)
def test_pattern_after_a_cut(bench: Bench) -> None:
    topic, ledger, link = bench.topic(Subscription("g", "order.*")), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=topic))
    consumer = bench.consume(topic, "g", broker=broker, **_short_leases(bench))
    due = []
    for _ in range(3):
        for type in ("order.placed", "bill.sent", "order.placed.late", "order.paid"):
            message = ledger.message(type=type)
            ledger.publish_one(bench.broker, topic, message)
            if type in ("order.placed", "order.paid"):
                due.append(message.id)
        bench.take(consumer, ledger, ack=True, only=due, timeout=_recovery(bench))
        consumer.flush()
        bench.quiet(consumer, ledger)
        link.cut()
        link.resume()
    ledger.check(duplicates=True, only=due)


def _publishes(broker: Broker, source: Source, ledger: Ledger) -> bool:
    try:
        ledger.publish_one(broker, source.destination, ledger.message(), timeout=5)
    except (PublishTimeout, BrokerUnavailable):
        return False
    return True


def _ended(bench: Bench, threads: set[threading.Thread]) -> None:
    def alive() -> list[str]:
        # The suite's own proxies carry connections of other brokers, too.
        return [thread.name for thread in threads if thread.is_alive() and not thread.name.startswith("proxy-")]

    bench.eventually(lambda: not alive(), lambda: f"the threads of a closed broker to end: {alive()}")


class _Errors(logging.Handler):
    """Collects what the library logs at error level or above, in some threads."""

    def __init__(self, threads: set[threading.Thread]) -> None:
        super().__init__(logging.ERROR)
        self._threads = {thread.ident for thread in threads}
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread in self._threads and record.name.startswith("messaging"):
            self.texts.append(record.getMessage())

    def __enter__(self) -> _Errors:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_error: object) -> None:
        logging.getLogger().removeHandler(self)
