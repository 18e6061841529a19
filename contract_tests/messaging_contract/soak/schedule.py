"""Which fault comes when: endless, and the same for the same seed and kinds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random

from messaging.errors import ConfigurationError
from messaging_contract.faults import Direction
from messaging_contract.harness import Harness

CONTROLS: dict[str, tuple[str, ...]] = {
    "cut": ("link",),
    "blackhole": ("link",),
    "delay": ("link",),
    "throttle": ("link",),
    "pause": ("pause", "unpause"),
    "restart": ("restart",),
    "kill": ("kill",),
    "alarm": ("alarm", "clear_alarm"),
    "clock": ("advance",),
    "kill-consumer": ("remote",),
    "close-consumer": (),
}
"""Every kind of fault, and what a harness must be able to do for it."""

_SECONDS = {
    "cut": (0.2, 4.0),
    "blackhole": (1.0, 6.0),
    "delay": (2.0, 6.0),
    "throttle": (2.0, 6.0),
    "pause": (1.0, 6.0),
    "alarm": (2.0, 8.0),
}
"""How long a fault lasts. Those that are not here are over when they are done."""

_TAKES = {"restart": 12.0, "kill": 12.0}
"""About how long those take, so that the next is not due before they are done."""

PEACE = 2.0
"""Seconds between the end of a fault and the next, at least."""

_GAP = (PEACE, 5.0)

_SETTLING = 3.0
"""Seconds before the first. RabbitMQ forgets where the log of a queue is when it is killed within about two seconds of
its declaration (docs/faults.md); how old queues fare is what is looked at here."""


@dataclass(frozen=True)
class Fault:
    """at: seconds since the start. seconds: how long. amount: of a delay and a clock seconds, of a throttle bytes/s."""

    at: float
    kind: str
    direction: Direction = "both"
    seconds: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        words = [self.kind]
        if self.kind in ("cut", "blackhole", "delay", "throttle"):
            words.append(self.direction)
        if self.kind in ("delay", "clock"):
            words.append(f"by {self.amount:g} s")
        if self.kind == "throttle":
            words.append(f"to {self.amount:,.0f} bytes/s")
        if self.seconds:
            words.append(f"for {self.seconds:g} s")
        return " ".join(words)


def choose(text: str, harness: Harness) -> tuple[list[str], list[str]]:
    """What `--faults` asks for: the kinds to make, and for `all` those that this harness cannot make.

    Raises ConfigurationError for an unknown kind, and for one that is asked for by name and cannot be made.
    """
    cannot = {kind: [each for each in needs if not harness.can(each)] for kind, needs in CONTROLS.items()}
    if text == "all":
        return [kind for kind in CONTROLS if not cannot[kind]], [kind for kind in CONTROLS if cannot[kind]]
    kinds = [] if text == "none" else [word.strip() for word in text.split(",") if word.strip()]
    for kind in kinds:
        if kind not in CONTROLS:
            near = get_close_matches(kind, CONTROLS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"No fault is called {kind!r}.{hint} There are: all, none, {', '.join(CONTROLS)}.")
        if cannot[kind]:
            raise ConfigurationError(
                f"The fault {kind!r} cannot be made on {harness.name}, which has no control {', '.join(cannot[kind])}: "
                "name others, or run it with --containers, where the suite can stop what it started."
            )
    return list(dict.fromkeys(kinds)), []


def schedule(seed: int, kinds: Collection[str]) -> Iterator[Fault]:
    """Endless, in the order of `at`; one at a time, every kind once in each round. Empty without kinds."""
    random = Random(seed)
    ordered: Sequence[str] = sorted(kinds)
    now = _SETTLING
    while ordered:
        for kind in random.sample(ordered, len(ordered)):
            now += random.uniform(*_GAP)
            fault = _fault(random, round(now, 1), kind)
            yield fault
            now += fault.seconds + _TAKES.get(kind, 0.0)


def _fault(random: Random, at: float, kind: str) -> Fault:
    direction = random.choice(("up", "down", "both"))
    seconds = round(random.uniform(*_SECONDS[kind]), 1) if kind in _SECONDS else 0.0
    amount = 0.0
    if kind == "delay":
        amount = round(random.uniform(0.02, 0.3), 2)
    elif kind == "throttle":
        amount = float(random.randrange(20_000, 200_000, 1000))
    elif kind == "clock":
        amount = float(random.randrange(5, 60))
    return Fault(at, kind, direction, seconds, amount)  # type: ignore[arg-type]
