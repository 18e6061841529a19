"""A TCP proxy between client and broker that can be cut, fall silent, slow down and come back, each way for itself."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from types import TracebackType
from typing import Literal, Self

HOST = "127.0.0.1"

Direction = Literal["up", "down", "both"]
"""Which way a fault works: "up" is from the client to the broker, "down" from the broker to the client."""

_POLL = 0.2
"""Seconds after which a blocked accept or connect looks whether it should end."""

_SLICE = 0.05
"""Seconds that a throttled way is kept busy by one piece, so that a change of the rate is noticed."""

_CHUNK = 65536


@dataclass
class _Way:
    """What happens to bytes that go one way. rate: bytes a second for each connection; 0 for no limit."""

    ended: bool = False
    silent: bool = False
    delay: float = 0.0
    rate: float = 0.0

    def reset(self) -> None:
        self.ended = self.silent = False
        self.delay = self.rate = 0.0


@dataclass(eq=False)
class _Pair:
    """One connection carried. running: its threads; the last to end closes both. doomed: it is being reset."""

    client: socket.socket
    server: socket.socket
    running: int = 2
    doomed: bool = False


class TcpProxy:
    """Carries every connection made to `port` on to `upstream`. Every method may be called from any thread.

    Faults add up until `resume`, which ends all of them. One thread accepts, two carry each connection; `close` joins
    them all. `_changed` guards everything below it.
    """

    def __init__(self, upstream: tuple[str, int] | None = None, port: int = 0) -> None:
        self.upstream = upstream
        """Where connections go; None until it is known."""
        self._changed = Condition()
        self._pairs: set[_Pair] = set()
        self._threads: list[Thread] = []
        self._up, self._down = _Way(), _Way()
        self._closed = False
        self._listener: socket.socket | None = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        """Where clients connect to, on 127.0.0.1. The same for the proxy's life."""
        self._accepting = Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True)
        self._accepting.start()

    def cut(self, direction: Direction = "both") -> None:
        """Both ways: resets every connection, and refuses new ones until `resume`.

        One way: whoever reads that way gets the end of the stream, and nothing more is carried that way, while the
        other way goes on; new connections are accepted and are half closed from the start, until `resume`.
        """
        if direction != "both":
            self._half_close(direction)
            return
        with self._changed:
            listener, self._listener = self._listener, None
            doomed = list(self._pairs)
            for pair in doomed:
                _doom(pair)
            self._changed.notify_all()
        if listener is not None:
            _wake(listener, socket.SHUT_RDWR)  # a thread blocked in accept would keep the port taken
            listener.close()
        with self._changed:
            if not self._changed.wait_for(lambda: self._pairs.isdisjoint(doomed), _POLL):
                for pair in self._pairs.intersection(doomed):  # blocked in a send, which only this ends
                    _wake(pair.client, socket.SHUT_RDWR)
                    _wake(pair.server, socket.SHUT_RDWR)

    def blackhole(self, direction: Direction = "both") -> None:
        """Connections stand, new ones are accepted, and nothing is carried that way until `resume`; then it all is."""
        with self._changed:
            for way in self._ways(direction):
                way.silent = True

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """Carries everything at least `seconds` later that way, until `resume`. Raises ValueError below 0."""
        if seconds < 0:
            raise ValueError(f"delay must be seconds from 0 on, not {seconds!r}")
        with self._changed:
            for way in self._ways(direction):
                way.delay = seconds

    def throttle(self, bytes_per_second: float, direction: Direction = "both") -> None:
        """Carries at most so many bytes a second that way, on each connection, until `resume`.

        Raises ValueError unless it is above 0.
        """
        if not bytes_per_second > 0:
            raise ValueError(f"throttle must be bytes a second above 0, not {bytes_per_second!r}; 0 is a blackhole()")
        with self._changed:
            for way in self._ways(direction):
                way.rate = bytes_per_second
            self._changed.notify_all()

    def resume(self) -> None:
        """Carries everything again, at once. Idempotent."""
        with self._changed:
            self._up.reset()
            self._down.reset()
            if self._listener is None and not self._closed:
                self._listener = _listen(self.port)
            self._changed.notify_all()

    @property
    def connections(self) -> int:
        """How many connections are carried now."""
        with self._changed:
            return len(self._pairs)

    def close(self) -> None:
        """Resets every connection and joins the threads. Idempotent."""
        with self._changed:
            self._closed = True
            self._up.reset()
            self._down.reset()
        self.cut()
        self._accepting.join()
        with self._changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ways(self, direction: Direction) -> Iterator[_Way]:
        if direction not in ("up", "down", "both"):
            raise ValueError(f"direction must be 'up', 'down' or 'both', not {direction!r}")
        if direction != "down":
            yield self._up
        if direction != "up":
            yield self._down

    def _half_close(self, direction: Direction) -> None:
        with self._changed:
            for way in self._ways(direction):
                way.ended = True
            for pair in self._pairs:
                _wake(pair.client if direction == "up" else pair.server, socket.SHUT_RD)
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._listener is not None)
                if self._closed or self._listener is None:
                    return
                listener = self._listener
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:  # cut
                continue
            self._start(client)

    def _start(self, client: socket.socket) -> None:
        if self.upstream is None:
            _abort(client)
            return
        try:
            server = socket.create_connection(self.upstream, timeout=5)
        except OSError:
            _abort(client)
            return
        for each in (client, server):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            cut = self._listener is None
            if not cut:
                pair = _Pair(client, server)
                self._pairs.add(pair)
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                for way in (self._up, self._down):
                    thread = Thread(target=self._carry, args=(pair, way), name=f"proxy-{self.port}-carry", daemon=True)
                    self._threads.append(thread)
                    thread.start()
        if cut:
            _abort(client)
            _abort(server)

    def _carry(self, pair: _Pair, way: _Way) -> None:
        source, target = (pair.client, pair.server) if way is self._up else (pair.server, pair.client)
        try:
            while not way.ended and (data := source.recv(_CHUNK)):
                self._pass(pair, way, target, data)
            self._hold(pair, way)
            if not pair.doomed:
                target.shutdown(socket.SHUT_WR)
        except OSError:  # one end went away: the other has to learn it
            with self._changed:
                _doom(pair)
                self._changed.notify_all()
        finally:
            with self._changed:
                pair.running -= 1
                if not pair.running:
                    self._pairs.discard(pair)
                    (_abort if pair.doomed else socket.socket.close)(pair.client)
                    (_abort if pair.doomed else socket.socket.close)(pair.server)
                    self._changed.notify_all()

    def _pass(self, pair: _Pair, way: _Way, target: socket.socket, data: bytes) -> None:
        """Carries `data` as the way allows; drops it when the way or the connection was ended meanwhile."""
        self._hold(pair, way)
        if way.delay:
            with self._changed:
                self._changed.wait_for(lambda: pair.doomed, way.delay)
        left = memoryview(data)
        while left:
            self._hold(pair, way)
            if way.ended or pair.doomed:
                return
            rate = way.rate
            piece = left[: max(int(rate * _SLICE), 1)] if rate else left
            target.sendall(piece)
            left = left[len(piece) :]
            if rate:
                self._wait(pair, way, len(piece) / rate)

    def _wait(self, pair: _Pair, way: _Way, seconds: float) -> None:
        """Waits, unless the rate is changed meanwhile."""
        rate = way.rate
        with self._changed:
            self._changed.wait_for(lambda: way.rate != rate or pair.doomed, seconds)

    def _hold(self, pair: _Pair, way: _Way) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not way.silent or way.ended or pair.doomed)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + 5
    while True:
        try:
            listener.bind((HOST, port))
            break
        except OSError:  # the kernel has not quite let go of the listener that was cut
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    listener.settimeout(_POLL)
    listener.listen(128)
    return listener


def _doom(pair: _Pair) -> None:
    """Wakes both threads of the pair, the last of which resets it: a reader's end alone sends nothing."""
    pair.doomed = True
    for each in (pair.client, pair.server):
        _wake(each, socket.SHUT_RD)


def _wake(each: socket.socket, how: int) -> None:
    """Ends the call that another thread is blocked in."""
    try:
        each.shutdown(how)
    except OSError:
        pass


def _abort(each: socket.socket) -> None:
    """Closes with a reset rather than an orderly end. No thread may be blocked on it: it would keep it open."""
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    each.close()
