"""The model test on the memory broker: that it finds nothing there, and finds what is planted."""

from __future__ import annotations

import pytest

from messaging_contract.__main__ import main
from messaging_contract.model.command import drive
from messaging_contract.model.model import Broken, ModelSource, Promises, Seen, Sent
from messaging_contract.model.world import MemoryWorld
from messaging_contract.saboteurs.catalogue import SABOTEURS

CAUGHT = (
    "acks-early",
    "acks-on-close",
    "begins-attempts-anew",
    "drops-on-nack",
    "duplicates-in-batches",
    "forgets-attempts",
    "ignores-prefetch",
    "ignores-the-delay",
    "lag-is-zero",
    "loses-a-header",
    "loses-delayed-retries",
    "nacks-early",
    "nacks-to-all-groups",
    "never-dead-letters",
    "new-ids",
    "overtakes-what-failed",
    "purges-all-groups",
    "reject-discards",
    "reject-forgets-why",
    "skips-attempts",
)
"""Saboteurs that the machine must find, in a few hundred examples each. It finds more of them with more examples."""
SEEDS = (None, 1, 2, 3, 4, 5)
"""One after the other until it is found. Which examples a seed stands for depends on how the package is installed."""


def test_the_memory_broker_does_what_the_model_says() -> None:
    difference = drive(MemoryWorld(), examples=300, steps=50)
    assert difference is None, difference


@pytest.mark.parametrize("name", CAUGHT)
def test_it_finds_what_is_planted(name: str) -> None:
    (driver,) = [saboteur.driver for saboteur in SABOTEURS if saboteur.name == name]
    tries = (drive(MemoryWorld(driver), examples=300, steps=50, shrink=False, seed=seed) for seed in SEEDS)
    difference = next((found for found in tries if found is not None), None)
    assert difference is not None
    assert "broker = connect(url, topology=destination)" in difference.script
    assert difference.script.splitlines()[-1] == f"# {difference.what}"


def test_the_command_tells_the_seed_and_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--examples", "5", "--steps", "10", "--seed", "7"]) == 0
    assert capsys.readouterr().out == "memory: --examples 5 --steps 10 --seed 7\nmemory: as the model says\n"


def test_the_command_refuses_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["model", "--examples", "0"])
    assert "must be at least 1, not 0" in capsys.readouterr().err


M0, M1 = Sent("m0", b"", key="k"), Sent("m1", b"", key="k")


def source_of(*messages: Sent, **promises: bool) -> ModelSource:
    source = ModelSource("q", Promises(**promises), ModelSource("q--dlq", Promises()))
    for message in messages:
        source.publish(message, 0.0)
    return source


def test_what_is_acked_may_not_come_again() -> None:
    source = source_of(M0)
    consumer = source.subscribe(10)
    (delivery,) = source.receive(consumer, [Seen(M0, 1)], 10, 0.0)
    source.ack(delivery)
    source.close(consumer, 1.0)
    with pytest.raises(Broken, match="m0 came to q again, though it was settled"):
        source.receive(source.subscribe(10), [Seen(M0, 2)], 10, 1.0)


def test_with_one_position_only_what_is_above_an_unsettled_one_may_come_again() -> None:
    source = source_of(M0, M1, one_by_one=False, kept=False)
    consumer = source.subscribe(10)
    first, second = source.receive(consumer, [Seen(M0, 1), Seen(M1, 1)], 10, 0.0)
    source.ack(second)
    source.close(consumer, 1.0)
    again = source.subscribe(10)
    first, second = source.receive(again, [Seen(M0, 1), Seen(M1, 1)], 10, 1.0)
    source.ack(first)
    source.ack(second)
    source.close(again, 2.0)
    with pytest.raises(Broken, match="m1 came to q again"):
        source.receive(source.subscribe(10), [Seen(M1, 1)], 10, 2.0)


def test_of_a_key_one_at_a_time() -> None:
    source = source_of(M0, M1, ordered=True)
    with pytest.raises(Broken, match="m1 came while m0 of its key is in flight"):
        source.receive(source.subscribe(10), [Seen(M0, 1), Seen(M1, 1)], 10, 0.0)


def test_a_nacked_one_may_not_come_early_and_must_come_in_the_end() -> None:
    source = source_of(M0)
    consumer = source.subscribe(1)
    (delivery,) = source.receive(consumer, [Seen(M0, 1)], 1, 0.0)
    source.nack(delivery, 5.0, True)
    assert not source.must_deliver(consumer, 4.9)
    assert source.must_deliver(consumer, 5.0)
    with pytest.raises(Broken, match=r"m0 came to q 1\.000 s early"):
        source.receive(consumer, [Seen(M0, 2)], 1, 4.0)
