"""That the hunt is honest: it tells a defect that a clause found from a saboteur that fell over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from messaging import Delivery, SettleFailed
from messaging.capabilities import Capabilities, unsupported
from messaging_contract.bench import Bench
from messaging_contract.clauses import all_clauses
from messaging_contract.refusals import REFUSALS, refuse
from messaging_contract.saboteurs import hunt
from messaging_contract.saboteurs.catalogue import HONEST, SABOTEURS
from messaging_contract.saboteurs.harnesses import harness_of
from messaging_contract.saboteurs.hunt import judge
from messaging_contract.saboteurs.saboteur import Saboteur
from messaging_contract.saboteurs.unsabotaged import WHY_NOT
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver

CLAUSES = {clause.id: clause for clause in all_clauses()}

REFUSED_BY_THE_CORE = {
    "queues", "topics", "patterns", "ordering", "delayed_queue", "delayed_topic", "mandatory", "replay", "lag",
    "transactions",
}  # fmt: skip


def test_each_is_named_once_and_names_clauses_that_exist() -> None:
    assert len({saboteur.name for saboteur in SABOTEURS}) == len(SABOTEURS) >= 40
    assert all(saboteur.defect for saboteur in SABOTEURS)
    unknown = {id for saboteur in SABOTEURS for id in saboteur.clauses} - set(CLAUSES)
    assert not unknown, f"saboteurs name {unknown}, which are no clauses"
    idle = [saboteur.name for saboteur in SABOTEURS if not saboteur.clauses]
    assert not idle, f"{idle} name no clause that must fail on them"
    twice = [saboteur.name for saboteur in SABOTEURS if len(set(saboteur.clauses)) < len(saboteur.clauses)]
    assert not twice, f"{twice} name a clause twice"


def test_each_clause_is_known_to_be_able_to_fail_or_says_why_not() -> None:
    named = {id for saboteur in SABOTEURS for id in saboteur.clauses}
    unproven = [id for id in CLAUSES if id not in named and id not in WHY_NOT]
    assert not unproven, f"no saboteur names {unproven}: write one, or say in saboteurs/unsabotaged.py why none can be"
    assert not named & set(WHY_NOT), "these have a saboteur, and a reason why none can be"
    assert set(WHY_NOT) <= set(CLAUSES), "reasons for clauses that do not exist"
    assert all(WHY_NOT.values())


def test_an_honest_driver_is_not_caught() -> None:
    verdict = judge(HONEST, CLAUSES["publish.round-trip"])
    assert not verdict.found
    assert not verdict.text


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
    driver = type("Driver", (HonestDriver,), {"Receiver": receiver})
    return Saboteur("s", receiver.__doc__ or "", driver, ("receive.exposes",))


class Asserts(HonestReceiver):
    """Has an assertion of its own that does not hold."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        raise AssertionError("of the saboteur's own")


class FailsToClose(HonestReceiver):
    """Raises when it is closed."""

    def close(self) -> None:
        super().close()
        raise SettleFailed("at close")


@pytest.mark.parametrize("receiver", [Crashes, Asserts, FailsToClose])
def test_a_saboteur_that_falls_over_is_not_caught(receiver: type[HonestReceiver]) -> None:
    verdict = judge(saboteur_of(receiver), CLAUSES["publish.round-trip"])
    assert not verdict.found
    assert verdict.text.startswith("crashed: ")


class CrashesBehindTheScenes(HonestReceiver):
    """Has a bug where a worker catches what its consumer raises."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        raise ZeroDivisionError("a bug of the saboteur's own")


def test_a_crash_that_nobody_saw_is_not_a_catch() -> None:
    verdict = judge(saboteur_of(CrashesBehindTheScenes), CLAUSES["retry.succeeds-later"])
    assert not verdict.found
    assert "a bug of the saboteur's own" in verdict.text


def test_a_clause_that_cannot_be_run_is_not_a_catch() -> None:
    verdict = judge(saboteur_of(LosesAll), CLAUSES["faults.outage"])
    assert not verdict.found
    assert "no control link" in verdict.text


def test_what_is_caught_tells_how() -> None:
    verdict = judge(saboteur_of(LosesAll), CLAUSES["receive.exposes"])
    assert verdict.found
    assert "0 of 1 messages" in verdict.text


def _catalogue(monkeypatch: pytest.MonkeyPatch, receiver: type[HonestReceiver], *clauses: str) -> None:
    monkeypatch.setattr(hunt, "SABOTEURS", (replace(saboteur_of(receiver), clauses=clauses),))


def test_a_hunt_fails_when_one_of_the_named_clauses_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _catalogue(monkeypatch, LosesAll, "receive.exposes", "receive.empty-deadline")
    assert hunt.hunt() == 1
    said = capsys.readouterr().out
    assert "receive.empty-deadline NOT CAUGHT  Loses everything." in said
    assert "1 of 2 times" in said


def test_a_hunt_succeeds_when_all_of_the_named_clauses_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _catalogue(monkeypatch, LosesAll, "receive.exposes")
    assert hunt.hunt() == 0
    said = capsys.readouterr().out
    assert "1 of 1 times" in said
    [areas] = [line.split() for line in said.splitlines() if line.startswith("receive ")]
    assert areas[1] == "1"


def test_a_hunt_for_nothing_fails() -> None:
    assert hunt.hunt("no such saboteur") == 1


def without(names: Sequence[str]) -> Saboteur:
    """A driver that declares these unsupported, and knows no better than the core."""
    able = replace(HonestDriver.capabilities, **{name: unsupported("none") for name in names})
    return Saboteur("s", "", type("Driver", (HonestDriver,), {"capabilities": able}), ())


def test_every_capability_can_be_refused() -> None:
    assert set(REFUSALS) == set(Capabilities.names())


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
