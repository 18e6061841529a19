"""A thread that owns a client's consumer: every call of it is made there, also those that others ask for."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Thread
from typing import TypeVar

from confluent_kafka import KafkaException

from messaging.buffer import DeliveryBuffer
from messaging.errors import BrokerUnavailable, Closed, MessagingError
from messaging.topology import Source

from .answers import answer
from .errors import translate

log = logging.getLogger(__name__)

T = TypeVar("T")


class OwnerThread(ABC):
    """Runs `_step` until told to stop, then `_leave`.

    Threads: `start`, `wake`, `call`, `stop` and `join` from any; what begins with an underscore belongs to the owner
    thread. `_commands` is a deque, which needs no lock. `join` joins the thread.
    """

    def __init__(self, source: Source, buffer: DeliveryBuffer, name: str) -> None:
        self._source = source
        self._buffer = buffer
        self.failure: MessagingError | None = None
        """Why this consumer is dead, if it is."""
        self.waiting = False
        """Whether the thread waits to be woken."""
        self._commands: deque[Callable[[], object]] = deque()
        self._stop = False
        self._wake = Event()
        self._thread = Thread(target=self._run, name=f"{name}-{source.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to do: a settlement, a command."""
        self._wake.set()

    def post(self, command: Callable[[], object]) -> None:
        """Runs `command`, which raises nothing, in the owner thread, soon. Commands are run in the order given."""
        self._commands.append(command)
        self._wake.set()

    def call(self, command: Callable[[], T], timeout: float) -> T:
        """Runs `command` in the owner thread and returns its result. Raises BrokerUnavailable after `timeout`."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(command())
            except BaseException as error:
                future.set_exception(error)

        self.post(run)
        return self._answer(future, timeout)

    def stop(self) -> None:
        """Ends the thread soon: it carries out what is settled and leaves the group."""
        self._stop = True
        self._wake.set()

    def join(self, timeout: float) -> bool:
        """Waits for the thread. Returns whether it ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _answer(self, future: Future[T], timeout: float) -> T:
        try:
            return answer(future, timeout, self._thread)
        except TimeoutError:
            if self._stop or not self._thread.is_alive():
                raise self.failure or Closed(f"the consumer of {self._source} was closed meanwhile") from None
            raise BrokerUnavailable(f"{self._source}: not done within {timeout:g} s") from None

    def _run(self) -> None:
        try:
            self._begin()
            while not self._stop and self.failure is None:
                self._step()
        except Exception as error:
            log.exception("the consumer of %s failed", self._source)
            self._die(
                translate(error, f"consumer of {self._source}")
                if isinstance(error, KafkaException)
                else MessagingError(f"consumer of {self._source}: {error!r}")
            )
        finally:
            self._leave()

    def _begin(self) -> None:  # noqa: B027 - not everybody has something to do
        """Before the first step."""

    @abstractmethod
    def _step(self) -> None:
        """One turn: commands, settlements, messages. Must not take long."""

    @abstractmethod
    def _leave(self) -> None:
        """The end: bounded, and raises nothing."""

    def _obey(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _die(self, error: MessagingError) -> None:
        if self.failure is None:
            self.failure = error
            self._buffer.fail(error)
