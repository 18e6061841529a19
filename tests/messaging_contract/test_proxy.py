"""Each fault of the proxy does what it says, that way, and nothing to the other way."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Thread

import pytest

from messaging_contract.faults import HOST, Direction, TcpProxy

ABSENT = 0.3
"""Seconds without a byte that prove that none comes: on this machine one takes well below a millisecond."""

one_way = pytest.mark.parametrize("direction", ["up", "down"])


@dataclass
class Ends:
    """The two ends of a connection through the proxy."""

    client: socket.socket
    server: socket.socket

    def along(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        """Who sends and who receives that way."""
        return (self.client, self.server) if direction == "up" else (self.server, self.client)

    def against(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        sender, receiver = self.along(direction)
        return receiver, sender


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def proxy(upstream: socket.socket) -> Iterator[TcpProxy]:
    with TcpProxy(upstream.getsockname()) as proxy:
        yield proxy


@pytest.fixture
def connected(proxy: TcpProxy, upstream: socket.socket) -> Iterator[Callable[[], Ends]]:
    """Makes a connection through the proxy."""
    made: list[socket.socket] = []

    def connect() -> Ends:
        client = socket.create_connection((HOST, proxy.port), timeout=10)
        server, _ = upstream.accept()
        server.settimeout(10)
        made.extend((client, server))
        return Ends(client, server)

    yield connect
    for each in made:
        each.close()


def passes(ends: tuple[socket.socket, socket.socket], data: bytes = b"x") -> bool:
    """Whether what is sent arrives, within the time that proves absence otherwise."""
    sender, receiver = ends
    sender.sendall(data)
    receiver.settimeout(ABSENT)
    try:
        return receiver.recv(len(data)) == data
    except TimeoutError:
        return False
    finally:
        receiver.settimeout(10)


def test_carries_both_ways(connected: Callable[[], Ends], proxy: TcpProxy) -> None:
    ends = connected()
    assert passes(ends.along("up"))
    assert passes(ends.along("down"))
    assert proxy.connections == 1


@one_way
def test_a_blackhole_stops_the_bytes_that_way_only_and_loses_none(
    connected: Callable[[], Ends], proxy: TcpProxy, direction: Direction
) -> None:
    ends = connected()
    proxy.blackhole(direction)
    assert not passes(ends.along(direction), b"held")
    assert passes(ends.against(direction))
    later = connected()
    assert not passes(later.along(direction))
    assert passes(later.against(direction))
    proxy.resume()
    assert ends.along(direction)[1].recv(4) == b"held"
    assert passes(ends.along(direction))


@one_way
def test_a_cut_one_way_ends_that_stream_only(
    connected: Callable[[], Ends], proxy: TcpProxy, direction: Direction
) -> None:
    ends = connected()
    assert passes(ends.along(direction))
    proxy.cut(direction)
    for each in (ends, connected()):
        assert each.along(direction)[1].recv(1) == b"", "the end of the stream"
        assert passes(each.against(direction))
    proxy.resume()
    assert passes(connected().along(direction))


def test_a_cut_both_ways_resets_and_refuses_until_resume(connected: Callable[[], Ends], proxy: TcpProxy) -> None:
    ends = connected()
    proxy.cut()
    for each in (ends.client, ends.server):
        with pytest.raises(ConnectionResetError):
            each.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port), timeout=10).close()
    proxy.resume()
    assert passes(connected().along("up"))


@one_way
def test_a_delay_is_that_way_only(connected: Callable[[], Ends], proxy: TcpProxy, direction: Direction) -> None:
    ends = connected()
    proxy.delay(0.4, direction)
    assert passes(ends.against(direction)), "this way is not late"
    sender, receiver = ends.along(direction)
    started = time.monotonic()
    sender.sendall(b"x")
    assert receiver.recv(1) == b"x"
    assert time.monotonic() - started >= 0.4


@one_way
def test_a_throttle_is_that_way_only_and_ends_at_once(
    connected: Callable[[], Ends], proxy: TcpProxy, direction: Direction
) -> None:
    ends = connected()
    proxy.throttle(1000, direction)
    assert passes(ends.against(direction), bytes(2000)), "this way is not slow"
    sender, receiver = ends.along(direction)
    data = bytes(5_000)
    started = time.monotonic()
    sender.sendall(data)
    got = receive_exactly(receiver, 500)
    # The last piece is carried before it is waited for.
    assert time.monotonic() - started >= (500 - 50) / 1000
    proxy.resume()
    receive_exactly(receiver, len(data) - got)
    assert time.monotonic() - started < 4, "5 s when it were still throttled"


def receive_exactly(receiver: socket.socket, count: int) -> int:
    got = 0
    while got < count:
        data = receiver.recv(count - got)
        assert data
        got += len(data)
    return got


@pytest.mark.parametrize("fault", ["blackhole", "throttle"])
def test_close_ends_everything_during_a_fault(
    connected: Callable[[], Ends], proxy: TcpProxy, no_threads_left: None, fault: str
) -> None:
    ends = connected()
    proxy.blackhole() if fault == "blackhole" else proxy.throttle(10)
    ends.client.sendall(bytes(1000))
    closing = Thread(target=proxy.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_wrong_arguments_are_refused(proxy: TcpProxy) -> None:
    with pytest.raises(ValueError, match="'up', 'down' or 'both'"):
        proxy.blackhole("sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"blackhole\(\)"):
        proxy.throttle(0)
    with pytest.raises(ValueError, match="seconds from 0 on"):
        proxy.delay(-1)
