"""The soak: its schedule, its oracle, its chart, and a short one of memory. Those of real brokers: each adapter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from threading import Event

import pytest

from messaging import Broker
from messaging.errors import ConfigurationError
from messaging_contract.__main__ import main
from messaging_contract.brokers import memory_harness
from messaging_contract.harness import Harness
from messaging_contract.soak.accounts import Meter, Published, Received
from messaging_contract.soak.chart import svg
from messaging_contract.soak.faults import Happened, Injector
from messaging_contract.soak.report import as_json, lines
from messaging_contract.soak.run import Plan, Result, Sample
from messaging_contract.soak.schedule import CONTROLS, Fault, choose, schedule
from messaging_contract.soak.traffic import Errors


def books(keys: int = 2, ordered: bool = True) -> tuple[Published, Received]:
    published = Published(2, keys, Meter())
    return published, Received("q", published, ordered, Meter())


# The schedule


def test_equal_seeds_make_equal_schedules() -> None:
    first, again, other = (list(islice(schedule(seed, CONTROLS), 100)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert list(map(str, first)) == list(map(str, again))


def test_the_order_in_which_kinds_are_named_does_not_matter() -> None:
    assert list(islice(schedule(1, ["cut", "pause"]), 20)) == list(islice(schedule(1, ["pause", "cut"]), 20))


def test_faults_come_one_at_a_time_and_every_kind_in_each_round() -> None:
    found = list(islice(schedule(3, CONTROLS), 4 * len(CONTROLS)))
    assert {fault.kind for fault in found[: len(CONTROLS)]} == set(CONTROLS)
    assert all(later.at > fault.at + fault.seconds for fault, later in pairwise(found))
    assert {fault.direction for fault in found} == {"up", "down", "both"}


def test_a_plan_by_time_ends_and_no_kinds_are_no_faults() -> None:
    assert all(fault.at < 60 for fault in Plan(1, ("cut",), seconds=60).schedule())
    assert list(schedule(1, [])) == []


def test_all_is_what_can_be_made_and_a_name_that_cannot_be_is_an_error() -> None:
    harness = memory_harness()
    kinds, cannot = choose("all", harness)
    assert kinds == ["clock", "close-consumer"]
    assert sorted([*kinds, *cannot]) == sorted(CONTROLS)
    assert choose("none", harness) == ([], [])
    with pytest.raises(ConfigurationError, match="'restart' cannot be made on memory, which has no control restart"):
        choose("clock,restart", harness)
    with pytest.raises(ConfigurationError, match="Did you mean 'blackhole'"):
        choose("blackhol", harness)


# The oracle


def test_balanced() -> None:
    published, received = books()
    numbers = [*published.attempt(0, 3), *published.attempt(1, 3)]
    assert numbers == [0, 2, 4, 1, 3, 5]
    published.confirm(numbers)
    assert received.missing() == 6
    received.record(numbers)
    balance = received.balance()
    assert (received.missing(), balance.received, balance.upheld) == (0, 6, True)


def test_lost_duplicated_recovered_and_unexpected() -> None:
    published, received = books()
    published.confirm(published.attempt(0, 2)[:1])
    published.fail(2, known=False)
    refused, lost = published.attempt(1, 2)
    published.fail(refused, known=True)
    published.confirm([lost])
    received.record([0, 0, 0, 2, refused, 77, -1])
    balance = received.balance()
    assert (balance.lost, balance.examples["lost"]) == (1, [lost])
    assert (balance.unexpected, balance.duplicated, balance.recovered) == (3, 1, 1)
    assert not balance.upheld


def test_a_dead_letter_is_not_lost() -> None:
    published, received = books()
    published.confirm(published.attempt(0, 1))
    received.bury([0])
    assert (received.balance().lost, received.balance().dead) == (0, 1)


@pytest.mark.parametrize("ordered", [True, False])
def test_reordered_within_a_key_breaks_the_guarantee_where_order_is_promised(ordered: bool) -> None:
    published, received = books(keys=4, ordered=ordered)
    numbers = list(published.attempt(0, 4))  # keys 0, 2, 0, 2
    published.confirm(numbers)
    received.record([numbers[1], numbers[0], numbers[3], numbers[2]])
    assert received.balance().reordered == 0, "other keys are not compared"
    later = list(published.attempt(0, 4))
    published.confirm(later)
    received.record([later[2], later[0], later[0], later[1], later[3]])
    balance = received.balance()
    assert (balance.reordered, balance.upheld) == (1, not ordered)


def test_a_million_messages_take_a_few_bytes_each() -> None:
    published, received = books()
    for _ in range(1000):
        numbers = published.attempt(0, 500)
        published.confirm(numbers)
        received.record(numbers)
    assert len(published._states) + len(received._counts) < 2 * 1_000_000 + 4 * (1 << 16)


# Making the faults


class Recorder:
    """A link and a consumer that note what was done to them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def cut(self, direction: str = "both") -> None:
        self.done.append(f"cut {direction}")

    def blackhole(self, direction: str = "both") -> None:
        self.done.append(f"blackhole {direction}")

    def delay(self, seconds: float, direction: str = "both") -> None:
        self.done.append(f"delay {seconds:g} {direction}")

    def throttle(self, rate: float, direction: str = "both") -> None:
        self.done.append(f"throttle {rate:g} {direction}")

    def resume(self) -> None:
        self.done.append("resume")

    def connect(self, **_options: object) -> Broker:
        raise NotImplementedError

    def close(self) -> None: ...

    def leave(self) -> None:
        self.done.append("leave")

    def advance(self, seconds: float) -> None:
        self.done.append(f"advance {seconds:g}")

    def named(self, name: str) -> Callable[[], None]:
        return lambda: self.done.append(name)


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        (Fault(0, "cut", "up", 0.01), ["cut up", "resume"]),
        (Fault(0, "blackhole", "down", 0.01), ["blackhole down", "resume"]),
        (Fault(0, "delay", "both", 0.01, 0.2), ["delay 0.2 both", "resume"]),
        (Fault(0, "throttle", "up", 0.01, 5000), ["throttle 5000 up", "resume"]),
        (Fault(0, "pause", seconds=0.01), ["pause", "unpause"]),
        (Fault(0, "alarm", seconds=0.01), ["alarm", "clear_alarm"]),
        (Fault(0, "restart"), ["restart"]),
        (Fault(0, "kill"), ["kill"]),
        (Fault(0, "clock", amount=9), ["advance 9"]),
        (Fault(0, "close-consumer"), ["leave"]),
        (Fault(0, "kill-consumer"), ["leave"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_each_fault_is_made_and_ended(fault: Fault, done: list[str]) -> None:
    recorder, errors = Recorder(), Errors()
    harness = memory_harness()
    harness.advance = recorder.advance
    for name in ("pause", "unpause", "alarm", "clear_alarm", "restart", "kill"):
        setattr(harness, name, recorder.named(name))
    injector = Injector(harness, recorder, [fault], [recorder], [recorder], lambda _at, _fault: None, Event(), errors)
    injector.start()
    injector.join(30)
    assert (recorder.done, errors.defects) == (done, [])
    (happened,) = injector.log
    assert happened.end is not None
    assert happened.end - happened.start >= fault.seconds


def test_a_fault_that_cannot_be_made_is_a_defect() -> None:
    def broken() -> None:
        raise RuntimeError("the engine is gone")

    harness, errors = memory_harness(), Errors()
    harness.restart = broken
    injector = Injector(harness, None, [Fault(0, "restart")], [], [], lambda _at, _fault: None, Event(), errors)
    injector.start()
    injector.join(30)
    assert errors.defects == ["the fault restart could not be made: RuntimeError: the engine is gone"]


# What is shown


def result(harness_name: str = "memory") -> Result:
    published, received = books()
    published.confirm(published.attempt(0, 2))
    received.record([0])
    faults = [Happened(Fault(1.0, "cut", "up", 2.0), 1.0, 3.0), Happened(Fault(5.0, "restart"), 5.0)]
    samples = [Sample(float(at), 10 * at, 9 * at) for at in range(8)]
    return Result(
        harness_name, Plan(7, ("cut", "restart"), 60.0), 8.0, 1.0, 2, 1, 0.5, 0.7, [received.balance()], faults,
        {"publish: PublishTimeout": 2}, {"publish: PublishTimeout": "late"}, [], samples,
    )  # fmt: skip


def test_the_chart_is_well_formed_and_marks_each_fault() -> None:
    root = ElementTree.fromstring(svg(result("a<b")))
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["1.0 s: cut up for 2 s", "5.0 s: restart"]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2


def test_the_account_in_words_and_for_machines() -> None:
    text = "\n".join(lines(result()))
    assert "lost, for example: [2]" in text
    assert "raised 2 times, publish: PublishTimeout: late" in text
    assert "THE GUARANTEE WAS NOT UPHELD" in text
    assert json.loads(json.dumps(as_json(result())))["sources"][0]["lost"] == 1


# The command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chart, account = tmp_path / "c.svg", tmp_path / "a.json"
    arguments = ["soak", "--broker", "memory://", "--messages", "2000", "--seed", "5"]
    assert main([*arguments, "--chart", str(chart), "--json", str(account)]) == 0
    out = capsys.readouterr().out
    assert "memory, --seed 5 --faults clock,close-consumer" in out
    assert "the guarantee was upheld" in out
    assert json.loads(account.read_text("utf-8"))["confirmed"] >= 2000
    assert ElementTree.parse(chart).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--broker", "memory://"], "--minutes N and --messages N"),
        (["--broker", "memory://", "--minutes", "1", "--messages", "1"], "--minutes N and --messages N"),
        (["--broker", "memory://", "--minutes", "0"], "must be above 0"),
        (["--minutes", "1"], "Give one of --broker URL and --containers NAME"),
        (["--broker", "memory://", "--broker", "memory://", "--minutes", "1"], "Give one of"),
        (["--broker", "memori://", "--minutes", "1"], "did you mean"),
        (["--broker", "memory://", "--minutes", "1", "--faults", "kill"], "has no control kill"),
        (["--broker", "memory://", "--minutes", "1", "--chart", "c.png"], "name it .svg"),
        (["--broker", "memory://", "--minutes", "1", "--json", "nowhere/a.json"], "no folder"),
    ],
)
def test_wrong_arguments(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["soak", *arguments])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_no_broker_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["soak", "--broker", "rabbitmq://127.0.0.1:1?connect_timeout=1", "--minutes", "1"]) == 3
    assert "soak: " in capsys.readouterr().err


def test_a_short_one_of_memory(short_soak: Callable[[Harness, float], None]) -> None:
    short_soak(memory_harness(), 10.0)


def test_an_interrupt_ends_it_early_and_the_account_is_given() -> None:
    command = ["-m", "messaging_contract", "soak", "--broker", "memory://", "--minutes", "60", "--faults", "none"]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while " received " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out.splitlines()[-1]) == (0, "the guarantee was upheld")
