"""The adapter about itself: its name, its native objects, and capabilities that are true both ways."""

from __future__ import annotations

import sys

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
    ours = {"messaging", type(bench.broker._driver).__module__.partition(".")[0]}
    ours.discard("messaging_memory")  # no client library: its server and its messages are what is native
    for native in (bench.broker.native, delivery.native):
        assert native is not None
        own, *bases = (each.__module__.partition(".")[0] for each in type(native).__mro__)
        # One that the adapter derived from a class of the client library is that too.
        assert own not in ours or set(bases) - ours - sys.stdlib_module_names, f"{type(native)} is the adapter's own"
    delivery.ack()
