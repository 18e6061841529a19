"""Looking at dead letters, and moving them back to where they came from.

The story of a dead letter is in its headers (`messaging.dead_letter`). Going back it is what it was before: same id, so
that an idempotent consumer recognises it, and to its own subscription only, never to the other groups of a topic.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Semaphore

from messaging.dead_letter import ATTEMPTS, ERROR, FIRST_TIME, REASON, SOURCE, TIME, without_story
from messaging.delivery import Delivery
from messaging.driver import Driver, Outgoing, Receiver, Sender
from messaging.errors import ConfigurationError, MessagingError, PublishTimeout, TopologyError
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.redrive_ledger import RedriveLedger
from messaging.topology import Source, Topology

_HELD = 1000
"""Dead letters that one pass holds at most, because they are not chosen; they are given back at its end."""
_CHUNK = 100
"""Dead letters that are moved together."""
_FIRST_WITHIN = 20.0
"""Seconds for the first: a consumer may have to join a group."""
_NEXT_WITHIN = 5.0
_END_WITHIN = 1.0
"""Seconds for more than the broker had said: what was just given back may not be counted yet."""


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter that was looked at. Times are seconds since the epoch; what is not told is None or ""."""

    id: str
    key: str | None
    type: str
    source: str
    reason: str
    error: str
    attempts: int | None
    time: float | None
    first_time: float | None
    published: float
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, letter: Delivery) -> DeadLetter:
        """Reads the headers of `letter`, whoever wrote them."""
        told = letter.headers.get
        attempts = told(ATTEMPTS, "")
        return cls(
            letter.id,
            letter.key,
            letter.type,
            told(SOURCE, ""),
            told(REASON, ""),
            told(ERROR, ""),
            int(attempts) if attempts.isascii() and attempts.isdigit() else None,
            _seconds(told(TIME)),
            _seconds(told(FIRST_TIME)),
            letter.timestamp,
            without_story(letter),
            letter.body,
        )


@dataclass(frozen=True)
class Choice:
    """Which dead letters: all that fulfil every condition given.

    error: a regular expression, searched in the error's type and in the reason. older_than, newer_than: seconds since
    it was dead-lettered; one that does not tell when is neither. headers: names and values. ids: one of them.
    """

    error: str = ""
    older_than: float | None = None
    newer_than: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        try:
            re.compile(self.error)
        except re.error as error:
            raise ConfigurationError(f"error {self.error!r} is no regular expression: {error}") from error
        for name in ("older_than", "newer_than"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigurationError(f"{name} must be seconds from 0 on, not {value!r}")

    def __contains__(self, letter: DeadLetter) -> bool:
        age = None if letter.time is None else time.time() - letter.time
        return (
            (not self.error or re.search(self.error, f"{letter.error}\n{letter.reason}") is not None)
            and (self.older_than is None or (age is not None and age >= self.older_than))
            and (self.newer_than is None or (age is not None and age <= self.newer_than))
            and all(letter.headers.get(name) == value for name, value in self.headers.items())
            and (not self.ids or letter.id in self.ids)
        )


ALL = Choice()


@dataclass
class Redriven:
    """What a redrive did. already: moved by an earlier run that was cut short, and only taken out now.

    passed_over: looked at and not chosen. failed: id and why; those stay. later: given up since it began, by the clock
    of who gave them up; they stay. unseen: what the broker still had when the pass ended, as exactly as it tells.
    """

    moved: int = 0
    already: int = 0
    passed_over: int = 0
    failed: list[tuple[str, MessagingError]] = field(default_factory=list)
    later: int = 0
    unseen: int = 0


class DeadLetterQueue:
    """The dead letters of one queue or subscription. Not thread-safe; several may work on one queue, each on its part.

    To look at a dead letter it is received and given back: `peek` leaves it in its queue, with one attempt more.
    While a pass lasts, nobody else gets what it holds.
    """

    def __init__(self, driver: Driver, source: Source) -> None:
        if source.dead_letter is None:
            raise TopologyError(f"{source} is declared without a dead-letter queue")
        self.source = source
        self._driver = driver
        self._queue = Source(source.dead_letter)

    @property
    def name(self) -> str:
        """`<queue>--dlq` or `<topic>--<group>--dlq`."""
        return self._queue.name

    def depth(self) -> int:
        """How many there are, as exactly as the broker tells. Raises DestinationNotFound."""
        return self._driver.depth(self._queue)

    def peek(self, limit: int = 20, choice: Choice = ALL) -> list[DeadLetter]:
        """Returns up to `limit` of the chosen ones; they stay where they are. Raises DestinationNotFound."""
        found: list[DeadLetter] = []
        with self._pass() as one_pass:
            for letters in one_pass.batches():
                found += [letter for letter in map(DeadLetter.of, letters) if letter in choice]
                if len(found) >= limit:
                    break
        return found[:limit]

    def redrive(
        self,
        choice: Choice = ALL,
        *,
        limit: int | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        ledger: str | Path | None = None,
        on_progress: Callable[[Redriven], None] = lambda _so_far: None,
    ) -> Redriven:
        """Moves the chosen ones back to their own queue or subscription: stored there, then taken out here.

        limit: so many at most. rate: so many a second at most. dry_run: only count. ledger: a file that remembers what
        was moved, so that after a crash the same call goes on without moving one twice; without it, or when a dead
        letter does not tell when it was given up, what was moved and not taken out yet is moved again, with the same
        id. Dead letters that come while it works are left for the next time. Raises DestinationNotFound when the source
        is gone, ConfigurationError; one that fails stays and is told in the result.
        """
        if rate is not None and not 0 < rate < math.inf:
            raise ConfigurationError(f"rate must be a positive number of messages a second, not {rate!r}")
        if limit is not None and limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit!r}")
        self._driver.depth(self.source)  # raises when it is gone, before anything is touched
        result = Redriven()
        size = _CHUNK if rate is None else max(min(int(rate), _CHUNK), 1)
        with (
            RedriveLedger.open(ledger, self._driver.name, self.source.name, dry_run=dry_run) as remembered,
            self._pass() as one_pass,
            self._sender() as sender,
        ):
            pace = _Pace(rate)
            for letters in one_pass.batches(since_then=False):
                chosen = [letter for letter in letters if DeadLetter.of(letter) in choice]
                result.passed_over += len(letters) - len(chosen)
                for start in range(0, len(chosen), size):
                    chunk = chosen[start : start + size]
                    if limit is not None:
                        chunk = chunk[: limit - result.moved - result.already]
                    gone, fresh = self._sort(chunk, remembered, result)
                    if dry_run:
                        result.moved += len(fresh)
                    else:
                        one_pass.settled(self._move(gone, fresh, sender, remembered, result))
                        pace.wait(result.moved)
                    on_progress(result)
                if limit is not None and result.moved + result.already >= limit:
                    break
            result.later = one_pass.later
            result.unseen = one_pass.unseen(result)
        return result

    def purge(self, choice: Choice = ALL) -> int:
        """Drops the chosen ones for good, and returns how many. Raises DestinationNotFound."""
        if choice == ALL:
            count = self.depth()
            self._driver.purge(self._queue)
            return count
        dropped = 0
        with self._pass() as one_pass:
            for letters in one_pass.batches():
                chosen = [letter for letter in letters if DeadLetter.of(letter) in choice]
                for letter in chosen:
                    letter.ack()
                one_pass.settled(chosen)
                dropped += len(chosen)
        return dropped

    def _sort(
        self, letters: Sequence[Delivery], remembered: RedriveLedger, result: Redriven
    ) -> tuple[list[Delivery], list[Delivery]]:
        """Those that an earlier run moved, and those to move. What came from elsewhere is told as failed."""
        gone: list[Delivery] = []
        fresh: list[Delivery] = []
        for letter in letters:
            if letter in remembered:
                gone.append(letter)
            elif (origin := letter.headers.get(SOURCE, self.source.name)) == self.source.name:
                fresh.append(letter)
            else:
                text = f"it came from {origin!r}: consume {self.name!r}, and publish it to where it belongs"
                result.failed.append((letter.id, TopologyError(text)))
        result.already += len(gone)
        return gone, fresh

    def _move(
        self,
        gone: list[Delivery],
        fresh: list[Delivery],
        sender: Sender,
        remembered: RedriveLedger,
        result: Redriven,
    ) -> list[Delivery]:
        """Returns those that are moved and taken out."""
        errors = self._send(fresh, sender)
        moved = [letter for letter, error in zip(fresh, errors, strict=True) if error is None]
        result.failed += [(letter.id, error) for letter, error in zip(fresh, errors, strict=True) if error is not None]
        remembered.add(moved)
        for letter in gone + moved:
            letter.ack()
        result.moved += len(moved)
        return gone + moved

    def _send(self, letters: list[Delivery], sender: Sender) -> list[MessagingError | None]:
        if not letters:
            return []
        timed_out = PublishTimeout(f"publish to {self.source.name!r}: no confirmation")
        outcomes: list[MessagingError | None] = [timed_out] * len(letters)
        reported = Semaphore(0)

        def done(index: int, error: MessagingError | None) -> None:
            outcomes[index] = error
            reported.release()

        only = None if self.source.subscription is None else self.source
        try:
            sender.send_again(letters, Outgoing(self.source.destination, only=only), done)
        except MessagingError as error:
            if len(letters) == 1:
                return [error]
            return [self._send([letter], sender)[0] for letter in letters]  # one of them cannot be sent: which?
        deadline = time.monotonic() + ProducerOptions().timeout + 5.0
        for _ in letters:
            reported.acquire(timeout=max(deadline - time.monotonic(), 0.0))
        return outcomes

    @contextmanager
    def _sender(self) -> Iterator[Sender]:
        sender = self._driver.sender(ProducerOptions())
        try:
            yield sender
        finally:
            sender.close(ProducerOptions().timeout)

    @contextmanager
    def _pass(self) -> Iterator[_Pass]:
        there = self.depth()  # raises when it is missing: it is not made by looking
        # It is there; what reading it takes may not be (a share group, and where that keeps what waits).
        self._driver.declare(Topology(self._queue.destination), True)
        # Not in lanes: one that stays must not hide the others of its key.
        exact = self._driver.depth_counts_held
        # Room for no more than there are, where that is known: who waits for more may have to move what is held.
        receiver = self._driver.receiver(
            self._queue, ConsumerOptions(prefetch=max(min(there, _HELD), 1) if exact else _HELD)
        )
        with closing(receiver):
            one_pass = _Pass(receiver, there, exact)
            yield one_pass
            receiver.flush(30.0)


class _Pass:
    """One look at each dead letter that is there. What is not settled is given back when the receiver is closed."""

    def __init__(self, receiver: Receiver, there: int, exact: bool) -> None:
        self._receiver = receiver
        self._there = there
        self._exact = exact
        self._begun = time.time() + 0.001  # they tell their time rounded to milliseconds
        self._seen = 0
        self._held = 0
        self.later = 0
        """How many were left out since they were given up after it began."""

    def batches(self, *, since_then: bool = True) -> Iterator[list[Delivery]]:
        """Ends when all were seen, or as many are held as may be.

        since_then: also those that were given up after the pass began. Without them, what is redriven and fails again
        is not redriven again; it is held until the end, so it comes once.
        """
        last = time.monotonic()
        while self._held < _HELD:
            letters = self._receiver.receive(_CHUNK, 0.5)
            now = time.monotonic()
            if letters:
                last = now
                counted = self._seen >= self._there
                self._seen += len(letters)
                self._held += len(letters)
                old = [letter for letter in letters if (_seconds(letter.headers.get(TIME)) or 0.0) <= self._begun]
                if not old and counted:
                    return  # only what failed since, and more of it may come for ever
                wanted = letters if since_then else old
                self.later += len(letters) - len(wanted)
                if wanted:
                    yield wanted
                if self._exact and self._seen >= self._there:
                    return
            elif now - last > self._patience():
                return

    def _patience(self) -> float:
        if self._seen >= self._there:
            return _END_WITHIN
        return _NEXT_WITHIN if self._seen else _FIRST_WITHIN

    def settled(self, letters: Sequence[Delivery]) -> None:
        """They are not held any more."""
        self._held -= len(letters)

    def unseen(self, result: Redriven) -> int:
        """How many of those that were there at the beginning nothing was decided about."""
        decided = result.moved + result.already + result.passed_over + len(result.failed) + result.later
        return max(self._there - decided, 0)


class _Pace:
    """Lets so many a second pass. Sleeps in the caller's thread."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._begun = time.monotonic()

    def wait(self, count: int) -> None:
        """Waits until `count` may have passed."""
        if self._rate is not None:
            Event().wait(max(self._begun + count / self._rate - time.monotonic(), 0.0))


def _seconds(text: str | None) -> float | None:
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if math.isfinite(found) else None
