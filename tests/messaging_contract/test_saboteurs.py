"""That the hunt is honest: it tells a defect that a clause found from a saboteur that fell over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from messaging import Delivery
from messaging.capabilities import Capabilities, unsupported
from messaging_contract.bench import Bench
from messaging_contract.clauses import all_clauses
from messaging_contract.refusals import REFUSALS, refuse
from messaging_contract.saboteurs.catalogue import HONEST, SABOTEURS, Saboteur
from messaging_contract.saboteurs.hunt import catch, harness_of
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver

CLAUSES = {clause.id: clause for clause in all_clauses()}

REFUSED_BY_THE_CORE = {
    "queues", "topics", "patterns", "ordering", "delayed_queue", "delayed_topic", "mandatory", "replay", "lag",
}  # fmt: skip


def test_each_is_named_once_and_its_likely_clauses_exist() -> None:
    assert len({saboteur.name for saboteur in SABOTEURS}) == len(SABOTEURS) >= 15
    assert {id for saboteur in SABOTEURS for id in saboteur.likely} <= set(CLAUSES)
    assert all(saboteur.defect for saboteur in SABOTEURS)


def test_every_group_of_clauses_is_tried() -> None:
    areas = {clause.area for clause in CLAUSES.values()}
    assert {CLAUSES[id].area for saboteur in SABOTEURS for id in saboteur.likely} == areas


def test_an_honest_driver_is_not_caught() -> None:
    assert catch(HONEST, [CLAUSES["publish.round-trip"]], set()).clause is None


class Crashes(HonestReceiver):
    """Has a bug."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        raise ZeroDivisionError("a bug of the saboteur's own")


class LosesAll(HonestReceiver):
    """Loses everything."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        self.inner.ack(super().receive(max_messages, timeout))
        return []


def saboteur_of(receiver: type[HonestReceiver]) -> Saboteur:
    return Saboteur("s", receiver.__doc__ or "", type("Driver", (HonestDriver,), {"Receiver": receiver}))


def test_a_crash_is_not_a_kill() -> None:
    kill = catch(saboteur_of(Crashes), [CLAUSES["publish.round-trip"]], set())
    assert kill.clause is None
    assert "crashed in publish.round-trip" in kill.text


def test_a_kill_tells_the_clause() -> None:
    kill = catch(saboteur_of(LosesAll), [CLAUSES["receive.empty-deadline"], CLAUSES["receive.exposes"]], set())
    assert kill.clause == "receive.exposes"
    assert "0 of 1 messages" in kill.text


def without(names: Sequence[str]) -> Saboteur:
    """A driver that declares these unsupported, and knows no better than the core."""
    able = replace(HonestDriver.capabilities, **{name: unsupported("none") for name in names})
    return Saboteur("s", "", type("Driver", (HonestDriver,), {"capabilities": able}))


def test_every_capability_can_be_refused() -> None:
    assert set(REFUSALS) | {"transactions"} == set(Capabilities.names())


@pytest.mark.parametrize("capability", list(REFUSALS))
def test_a_capability_that_is_declared_unsupported_and_works_is_found(capability: str) -> None:
    harness = harness_of(without([capability]))
    bench = Bench(harness)
    try:
        if capability in REFUSED_BY_THE_CORE:
            refuse(capability, bench)
        else:
            with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
                refuse(capability, bench)
    finally:
        bench.close()
        harness.close()
