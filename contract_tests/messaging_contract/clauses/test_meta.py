"""The adapter about itself: its name, its native objects, and capabilities that are true both ways."""

from __future__ import annotations

import inspect

from messaging import Capabilities, Capability, Support
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.refusals import REFUSALS, refuse


@clause(
    "meta.capabilities", "Every capability is declared, and those not native say how or why.", anchors=[164, 165], on=()
)
def test_capabilities(bench: Bench) -> None:
    assert isinstance(bench.able, Capabilities)
    for name in Capabilities.names():
        capability = getattr(bench.able, name)
        assert isinstance(capability, Capability), name
        assert capability.support is Support.NATIVE or capability.how, (
            f"{name} is {capability.support} and says no more"
        )
    assert bench.able.queues or bench.able.topics
    for limit in (bench.able.max_message_bytes, bench.able.max_delay):
        assert limit is None or limit > 0


@clause(
    "meta.unsupported-refuses",
    "Whatever is declared unsupported is refused loudly, before anything is sent.",
    anchors=[96, 164],
    on=(),
)
def test_unsupported_refuses(bench: Bench) -> None:
    unsupported = [name for name in REFUSALS if not getattr(bench.able, name)]
    for name in unsupported:
        refuse(name, bench)
    assert set(REFUSALS) | {"transactions"} == set(Capabilities.names())


@clause("meta.name", "The broker's name is its adapter's, the URL's scheme.", anchors=[163], on=(), controls="url")
def test_name(bench: Bench) -> None:
    url = bench.harness.url
    assert url is not None
    assert url.startswith(f"{bench.broker.name}://")


@clause(
    "meta.native", "The native object is the client library's own, for broker and delivery.", anchors=[163], on=QUEUE
)
def test_native(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    delivery = bench.one(consumer, ledger)
    for native in (bench.broker.native, delivery.native):
        assert native is not None
        module = inspect.getmodule(type(native))
        assert module is None or module.__name__.split(".")[0] != "messaging"
    delivery.ack()
