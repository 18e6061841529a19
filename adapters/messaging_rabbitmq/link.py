"""One connection to the broker that is regained when lost, and the thread that owns it."""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from threading import Event, Thread, current_thread
from typing import Any

from pika import exceptions
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

from messaging.errors import BrokerUnavailable, Closed, MessagingError
from messaging_rabbitmq.connection import FrameConnection
from messaging_rabbitmq.failures import channel_failure, connect_failure
from messaging_rabbitmq.flow import Finished, Flow, Steps
from messaging_rabbitmq.options import RabbitMQOptions

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.0


class LinkUser(ABC):
    """Somebody with a channel on a Link. Every method is called on the I/O thread."""

    @abstractmethod
    def link_up(self) -> None:
        """There is an open connection, with the topology restored: open your channel."""

    @abstractmethod
    def link_down(self, error: MessagingError | None) -> None:
        """The connection is gone. `error`: the broker refuses us, so that waiting will not help."""

    def link_blocked(self) -> None:  # noqa: B027
        """The broker takes no publishes for now (`Link.blocked`). Only publishers care."""

    def link_unblocked(self) -> None:  # noqa: B027
        """The broker takes publishes again. Only publishers care."""


class Link:
    """Owns one pika connection and the I/O thread that runs it, over any number of reconnects.

    `submit`, `run`, `start` and `close` may be called from any thread, everything else on the I/O thread only.
    pika's add_callback_threadsafe is the one way across, and at most one wake-up is outstanding. `close` joins the
    thread. No handler of a message ever runs on it, so heartbeats are answered however long handlers take.
    """

    def __init__(self, options: RabbitMQOptions, label: str, restore: Callable[[], Steps]) -> None:
        self.options = options
        self.connection: FrameConnection | None = None
        self.blocked = False
        self.problem: MessagingError | None = None
        self.server_properties: Mapping[str, Any] = {}
        self._restore = restore
        self._loop = IOLoop()
        self._thread = Thread(target=self._main, name=f"rabbitmq-{label}", daemon=True)
        self._tasks: deque[Callable[[], None]] = deque()
        self._woken = False
        self._users: list[LinkUser] = []
        self._started: Future[None] = Future()
        self._attempt: FrameConnection | None = None
        self._tried = 0
        self._backoff = options.reconnect_min
        self._since = 0.0
        self._ready = False
        self._closing = False
        self._ended = Event()

    # -- any thread

    def start(self) -> None:
        """Connects. Raises BrokerUnavailable, AuthenticationFailed or ConfigurationError within connect_timeout."""
        self._thread.start()
        self.submit(self._connect)
        try:
            self._started.result(self.options.connect_timeout)
        except TimeoutError as error:
            self.close()
            raise connect_failure(TimeoutError("no answer"), self._where(), self._user(), self.options.vhost) from error
        except MessagingError:
            self.close()
            raise

    def submit(self, task: Callable[[], None]) -> None:
        """Runs `task` on the I/O thread soon; in order. After `close` it does not run."""
        self._tasks.append(task)
        # The flag is cleared before the queue is emptied, so a task added in between is never left behind.
        if not self._woken:
            self._woken = True
            self._loop.add_callback_threadsafe(self._run_tasks)

    def run(self, steps: Steps, what: str, timeout: float) -> Any:
        """Runs a Flow from another thread and returns its result. Raises what it raised, translated."""
        if self._ended.is_set():
            raise Closed(f"{what}: the connection is closed")
        result: Future[Any] = Future()

        def finished(value: Any, error: BaseException | None) -> None:
            if result.done():
                return
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)

        deadline = time.monotonic() + timeout
        self.submit(lambda: self._run_when_ready(steps, finished, deadline))
        try:
            return result.result(timeout + 1)
        except TimeoutError as error:
            why = "; it is short of memory or disk and blocks this connection" if self.blocked else ""
            raise BrokerUnavailable(f"{what}: RabbitMQ gave no answer within {timeout:g} seconds{why}") from error
        except exceptions.AMQPError as error:
            raise channel_failure(error, what) from error

    def alive(self) -> bool:
        """Whether the I/O thread is running."""
        return self._thread.is_alive()

    def say_goodbye(self) -> None:
        """Begins `close` without waiting."""
        if self._thread.ident is not None and not self._ended.is_set():
            self.submit(self._close)

    def close(self) -> None:
        """Says goodbye to the broker, for at most a few seconds, and joins the thread. Idempotent."""
        if self._thread.ident is None or self._thread is current_thread():
            return
        self.say_goodbye()
        self._thread.join(_CLOSE_SECONDS * 2)

    # -- the I/O thread

    @property
    def up(self) -> bool:
        """Whether channels may be opened."""
        return self._ready and self.connection is not None and self.connection.is_open

    def join(self, user: LinkUser) -> None:
        """Tells `user` about this connection from now on, and at once when it is open."""
        self._users.append(user)
        if self.up:
            user.link_up()

    def leave(self, user: LinkUser) -> None:
        """Undoes `join`."""
        if user in self._users:
            self._users.remove(user)

    def let_go(self, channel: Channel | None) -> None:
        """Closes `channel`, unless it went with its connection."""
        if channel is not None and self.connection is not None:
            self.connection.let_go(channel)

    def soon(self, task: Callable[[], None]) -> None:
        """Runs `task` on the I/O thread after what is running now."""
        self.submit(task)

    def later(self, delay: float, task: Callable[[], None]) -> Any:
        """Runs `task` on the I/O thread in `delay` seconds; the handle goes to `cancel`."""
        return self._loop.call_later(max(delay, 0.0), lambda: self._guard(task))

    def cancel(self, timer: Any) -> None:
        """Undoes `later`."""
        self._loop.remove_timeout(timer)

    def spawn(self, steps: Steps, finished: Finished) -> None:
        """Runs a Flow."""
        Flow(self, steps, finished)

    def _run_when_ready(self, steps: Steps, finished: Finished, deadline: float) -> None:
        if self.up or self._closing:
            Flow(self, steps, finished)
        elif time.monotonic() >= deadline:
            problem = self.problem or BrokerUnavailable(f"RabbitMQ at {self._where()} cannot be reached")
            finished(None, problem)
        else:
            self.later(0.05, lambda: self._run_when_ready(steps, finished, deadline))

    def _main(self) -> None:
        try:
            while not self._closing or self.connection is not None:
                try:
                    self._loop.start()
                except Exception as error:
                    # pika raises here, for one, when a connection is reset in the moment it was accepted; the
                    # attempt then stays silent until its timeout.
                    log.warning("RabbitMQ I/O: %r; the connection is dropped and regained", error, exc_info=True)
                    if self.connection is not None:
                        self.connection.abort("internal error")
                    elif self._attempt is not None:
                        self._on_open_error(None, error)
                    continue
                break
        finally:
            self._ended.set()
            self._run_tasks()
            self._loop.close()

    def _run_tasks(self) -> None:
        self._woken = False
        tasks = self._tasks
        while tasks:
            self._guard(tasks.popleft())

    @staticmethod
    def _guard(task: Callable[[], None]) -> None:
        try:
            task()
        except Exception:
            log.exception("RabbitMQ I/O: a task failed")

    def _connect(self) -> None:
        if self._closing:
            return
        addresses = self.options.addresses()
        host, port = addresses[self._tried % len(addresses)]
        self._tried += 1
        try:
            self._attempt = FrameConnection(
                self.options.parameters(host, port),
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_open_error,
                on_close_callback=self._on_close,
                custom_ioloop=self._loop,
            )
        except Exception as error:
            self._on_open_error(None, error)

    def _on_open(self, connection: FrameConnection) -> None:
        if self._closing or connection is not self._attempt:
            connection.close()
            return
        connection.read_in_large_pieces()
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self.connection = connection
        self.server_properties = connection.server_properties or {}
        self.blocked = False
        if not self._started.done():
            self._on_ready(None, None)
        else:
            log.info("RabbitMQ: connection to %s regained", self._where())
            Flow(self, self._restore(), self._on_ready)

    def _on_ready(self, _result: Any, error: BaseException | None) -> None:
        if error is not None:
            if not self.up and (self.connection is None or not self.connection.is_open):
                return
            log.error("RabbitMQ: the topology could not be restored completely: %s", error)
        self._ready = True
        self._since = time.monotonic()
        self.problem = None
        if not self._started.done():
            self._started.set_result(None)
        for user in list(self._users):
            self._guard(user.link_up)

    def _on_open_error(self, connection: FrameConnection | None, error: BaseException | str) -> None:
        if connection is not None and connection is not self._attempt:
            return
        self._attempt = None
        cause = error if isinstance(error, BaseException) else ConnectionError(error)
        failure = connect_failure(cause, self._where(), self._user(), self.options.vhost)
        self.problem = failure
        if self._closing:
            self._loop.stop()
            return
        first = not self._started.done()
        if first and (self._tried >= len(self.options.addresses()) or not failure.retryable):
            self._started.set_exception(failure)
            return
        if not first and not failure.retryable:
            for user in list(self._users):
                self._guard(partial(user.link_down, failure))
        self._again(0.0 if first else None)

    def _on_close(self, connection: FrameConnection, reason: BaseException) -> None:
        if connection is not self.connection:
            if self._closing:
                self._loop.stop()
            return
        self.connection = None
        self._attempt = None
        self._ready = False
        self.blocked = False
        for user in list(self._users):
            self._guard(partial(user.link_down, None))
        if self._closing:
            self._loop.stop()
            return
        log.warning("RabbitMQ: connection to %s lost (%s); regaining it", self._where(), reason)
        if time.monotonic() - self._since > self.options.reconnect_max:
            self._backoff = self.options.reconnect_min
            self._again(0.0)
        else:
            # What ended it so soon may do so again.
            self._again(None)

    def _again(self, delay: float | None) -> None:
        if delay is None:
            # Jitter, so that the clients of a restarted broker do not all come back in the same instant.
            delay = self._backoff * random.uniform(0.5, 1.0)
            self._backoff = min(self._backoff * 2, self.options.reconnect_max)
        self.later(delay, self._connect)

    def _on_blocked(self, _connection: FrameConnection, frame: Any) -> None:
        log.warning("RabbitMQ blocks publishing: %s", frame.method.reason)
        self.blocked = True
        for user in list(self._users):
            self._guard(user.link_blocked)

    def _on_unblocked(self, _connection: FrameConnection, _frame: Any) -> None:
        self.blocked = False
        for user in list(self._users):
            self._guard(user.link_unblocked)

    def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        connection = self.connection or self._attempt
        if connection is None or connection.is_closed:
            self._loop.stop()
            return
        # A blocked broker does not read, so it never answers the goodbye.
        self.later(0.2 if self.blocked else _CLOSE_SECONDS, self._abandon)
        if not connection.is_closing:
            connection.close()

    def _abandon(self) -> None:
        connection = self.connection or self._attempt
        if connection is not None:
            connection.abort("the broker did not answer in time")
        self.later(0.2, self._loop.stop)

    def _where(self) -> str:
        addresses = self.options.addresses()
        host, port = addresses[(self._tried - 1) % len(addresses)] if self._tried else addresses[0]
        return f"{host}:{port}"

    def _user(self) -> str:
        return self.options.username or "guest"
