"""What the machine drives: connections to one broker, and its time."""

from __future__ import annotations

from itertools import count
from threading import Event
from time import monotonic
from typing import Any
from uuid import uuid4

from messaging import Broker, config
from messaging.capabilities import Capabilities
from messaging.driver import Driver
from messaging_contract.harness import Harness
from messaging_contract.model.model import Promises
from messaging_memory import ManualClock, MemoryDriver, MemoryServer


class World:
    """A real broker. Its time is this machine's; letting it pass is waiting.

    exact: see `Promises`. waits: seconds that may be let pass in one go. delays: of nacks and publishes, seconds.
    patience: seconds in which must come what must come. quiet: seconds that show that nothing does.
    """

    exact = False
    waits: tuple[float, ...] = (0.3, 1.1)
    delays: tuple[float, ...] = (1.0,)

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._run = uuid4().hex[:6]
        self._numbers = count()
        self.patience = harness.patience
        self.quiet = min(harness.quiet, 0.3)

    def begin(self) -> None:
        """A new example begins."""

    def new_name(self) -> str:
        """Of a destination that nobody else uses."""
        return f"model-{self._run}-{next(self._numbers)}"

    def connect(self) -> Broker:
        return self._harness.connect()

    @property
    def able(self) -> Capabilities:
        return self._harness.capabilities

    @property
    def leases(self) -> bool:
        """Whether leases can be let run out: to the second they can only where time is the model's."""
        return False

    def consumers(self, promises: Promises) -> int:
        """How many of one source may be open: where a second one takes over what the first holds, one."""
        return 2 if promises.one_by_one and self._harness.exclusive else 1

    def promises(self, topic: bool, ordered: bool) -> Promises:
        kept = self._harness.attempts_kept("topic" if topic else "queue")
        # A queue whose keys are ordered is read like a subscription where the two differ.
        alone = kept and (not ordered or self._harness.attempts_kept("topic"))
        return Promises(self.exact, ordered, kept and not ordered, alone)

    def now(self) -> float:
        return monotonic()

    def let_pass(self, seconds: float) -> None:
        Event().wait(seconds)


class MemoryWorld(World):
    """A memory broker for each example, whose clock the machine moves: nothing waits, and all of it is exact.

    driver: the memory broker's, or one that pretends to be it.
    """

    exact = True
    waits = (1.1, 0.4, 3.0, 10.0)
    delays = (2.0, 0.5)
    patience = quiet = 0.0
    leases = True

    def __init__(self, driver: type[Driver] = MemoryDriver) -> None:
        self._driver = driver
        self.begin()

    def begin(self) -> None:
        self._clock = ManualClock()
        self._server = MemoryServer(clock=self._clock)

    def new_name(self) -> str:
        return "jobs"

    def connect(self) -> Broker:
        options: Any = config.build_options(self._driver.Options, {"server": self._server}, "memory")
        driver = self._driver(options)
        driver.open()
        return Broker(driver)

    @property
    def able(self) -> Capabilities:
        return self._driver.capabilities

    def consumers(self, promises: Promises) -> int:
        return 2

    def promises(self, topic: bool, ordered: bool) -> Promises:
        return Promises(True, ordered, not ordered, True)

    def now(self) -> float:
        return self._clock.now()

    def let_pass(self, seconds: float) -> None:
        self._clock.advance(seconds)
