"""A TCP proxy between client and broker that can be cut, fall silent, slow down, and come back."""

from __future__ import annotations

import socket
import struct
import time
from threading import Condition, Thread

HOST = "127.0.0.1"
_POLL = 0.2
"""Seconds after which a blocked accept or connect looks whether it should end."""


class TcpProxy:
    """Carries every connection made to `port` on to `upstream`. Every method may be called from any thread.

    One thread accepts, two carry each connection; `close` joins them all. `_changed` guards everything below it.
    """

    def __init__(self, upstream: tuple[str, int] | None = None, port: int = 0) -> None:
        self.upstream = upstream
        """Where connections go; None until it is known."""
        self._changed = Condition()
        self._sockets: set[socket.socket] = set()
        self._threads: list[Thread] = []
        self._silent = False
        self._delay = 0.0
        self._closed = False
        self._listener: socket.socket | None = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        """Where clients connect to, on 127.0.0.1. The same for the proxy's life."""
        self._accepting = Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        """Resets every connection, and refuses new ones until `resume`."""
        with self._changed:
            listener, self._listener = self._listener, None
            doomed = list(self._sockets)
            self._changed.notify_all()
        if listener is not None:
            _reset(listener)  # a thread blocked in accept would keep the port taken
            listener.close()
        for each in doomed:
            _reset(each)

    def blackhole(self) -> None:
        """Connections stand, new ones are accepted, and nothing is carried either way until `resume`."""
        with self._changed:
            self._silent = True

    def delay(self, seconds: float) -> None:
        """Carries everything at least `seconds` later, each way, until `resume`."""
        with self._changed:
            self._delay = seconds

    def resume(self) -> None:
        """Carries everything again, without delay. Idempotent."""
        with self._changed:
            self._silent = False
            self._delay = 0.0
            if self._listener is None and not self._closed:
                self._listener = _listen(self.port)
            self._changed.notify_all()

    @property
    def connections(self) -> int:
        """How many connections are carried now."""
        with self._changed:
            return len(self._sockets) // 2

    def close(self) -> None:
        """Resets every connection and joins the threads. Idempotent."""
        with self._changed:
            self._closed = True
            self._silent = False
        self.cut()
        self._accepting.join()
        with self._changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join()

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
            _reset(client)
            return
        try:
            server = socket.create_connection(self.upstream, timeout=5)
        except OSError:
            _reset(client)
            return
        for each in (client, server):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            cut = self._listener is None
            if not cut:
                self._sockets |= {client, server}
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                for source, target in ((client, server), (server, client)):
                    thread = Thread(
                        target=self._carry, args=(source, target), name=f"proxy-{self.port}-carry", daemon=True
                    )
                    self._threads.append(thread)
                    thread.start()
        if cut:
            _reset(client)
            _reset(server)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._hold()
                target.sendall(data)
            self._hold()
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one end went away: the other has to learn it
            _reset(source)
            _reset(target)
        finally:
            self._leave(source, target)

    def _hold(self) -> None:
        with self._changed:
            delay = self._delay
            self._changed.wait_for(lambda: not self._silent)
        if delay:
            time.sleep(delay)

    def _leave(self, source: socket.socket, target: socket.socket) -> None:
        """The second of a pair to end closes both."""
        with self._changed:
            self._sockets.discard(source)
            if target in self._sockets:
                return
        source.close()
        target.close()


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


def _reset(each: socket.socket) -> None:
    """Closes with a reset rather than an orderly end, and wakes whoever is blocked on it."""
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
