"""A TCP proxy between client and broker that can refuse, cut and blackhole."""

from __future__ import annotations

import contextlib
import socket
from threading import Event, Lock, Thread


class Proxy:
    """Forwards 127.0.0.1:`port` to the upstream. Two threads a connection, one that accepts; `close` joins that one."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._lock = Lock()
        self._sockets: set[socket.socket] = set()
        self._hole = Event()
        self._listener: socket.socket | None = None
        self._thread: Thread | None = None
        self.port = 0
        self.up()

    def up(self) -> None:
        """Accepts connections, always on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._hole.clear()
        self._thread = Thread(target=self._accept, args=(listener,), daemon=True)
        self._thread.start()

    def down(self) -> None:
        """Cuts every connection and refuses new ones."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        if self._thread is not None:
            self._thread.join(5)
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            _end(each)

    def blackhole(self) -> None:
        """Keeps connections, passes nothing on."""
        self._hole.set()

    def close(self) -> None:
        self.down()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(self._upstream)
            except OSError:
                return
            with self._lock:
                self._sockets |= {client, server}
            for one, other in ((client, server), (server, client)):
                Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self._hole.is_set():
                    target.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, target):
                with self._lock:
                    self._sockets.discard(each)
                _end(each)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
