"""A proxy before a Kafka that makes it say, as one that starts does for a moment, that the cluster has no broker."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from threading import Event, Thread

_METADATA = 3
_FLEXIBLE = 9
"""From this version on its answers have compact arrays."""


class BrokerlessProxy:
    """Carries whole requests and answers, and puts its own address where a broker tells that of its own.

    While `brokerless` is set, no answer about the cluster names a broker. `close` joins the threads.
    """

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port: int = self._listener.getsockname()[1]
        self.brokerless = Event()
        self._closed = Event()
        self._sockets: list[socket.socket] = []
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._closed.set()
        self._threads[0].join()
        self._listener.close()
        for each in self._sockets:
            _end(each)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
                client.settimeout(None)
                server = socket.create_connection(self._upstream)
            except OSError:
                continue
            self._sockets += [client, server]
            asked: dict[int, tuple[int, int]] = {}
            for target in (self._carry_up, self._carry_down):
                thread = Thread(target=target, args=(client, server, asked), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry_up(self, client: socket.socket, server: socket.socket, asked: dict[int, tuple[int, int]]) -> None:
        try:
            for request in _frames(client):
                api, version, number = struct.unpack_from(">hhi", request)
                asked[number] = api, version
                server.sendall(struct.pack(">i", len(request)) + request)
        except OSError:
            pass
        finally:
            _end(client)
            _end(server)

    def _carry_down(self, client: socket.socket, server: socket.socket, asked: dict[int, tuple[int, int]]) -> None:
        theirs, ours = (b"127.0.0.1" + struct.pack(">i", port) for port in (self._upstream[1], self.port))
        try:
            for answer in _frames(server):
                api, version = asked.pop(struct.unpack_from(">i", answer)[0], (-1, 0))
                if api == _METADATA and version >= _FLEXIBLE and self.brokerless.is_set():
                    answer = _without_brokers(answer)
                answer = answer.replace(theirs, ours)
                client.sendall(struct.pack(">i", len(answer)) + answer)
        except OSError:
            pass
        finally:
            _end(client)
            _end(server)


def _frames(source: socket.socket) -> Iterator[bytes]:
    stream = source.makefile("rb")
    while len(head := stream.read(4)) == 4:
        yield stream.read(struct.unpack(">i", head)[0])


def _without_brokers(answer: bytes) -> bytes:
    """Correlation id, tags, throttle time, then the brokers: id, host, port, rack and tags each."""
    start = 4 + 1 + 4
    end = start + 1
    for _ in range(answer[start] - 1):
        end += 4
        end += answer[end] + 4  # a length is one more than what it counts
        end += max(answer[end], 1)
        end += 1
    return answer[:start] + b"\x01" + answer[end:]


def _end(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    each.close()
