"""Temporary credentials that expire: everybody is told, nobody dies, and all goes on once there are new ones."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from messaging import Queue
from messaging.broker import Broker
from messaging.consumer import Consumer
from messaging.errors import AuthenticationFailed, MessagingError, SettleFailed

from .test_messages import take

Connect = Callable[..., Broker]

_EXPIRED = b'{"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "The security token is expired"}'


class Gate:
    """Passes requests on to the endpoint; while `expired` is set it answers as AWS does to an expired token."""

    def __init__(self, host: str, port: int) -> None:
        self.expired = Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if gate.expired.is_set():
                    self._answer(403, {"Content-Type": "application/x-amz-json-1.0"}, _EXPIRED)
                    return
                upstream = HTTPConnection(host, port)
                upstream.request("POST", self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                self._answer(answer.status, dict(answer.headers), answer.read())
                upstream.close()

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gate(url: str) -> Iterator[Gate]:
    match = re.match(r"sqs://(?:[^@/]*@)?([^:/?,]+):(\d+)", url)
    if match is None:
        pytest.skip("needs an endpoint with host and port")
    gate = Gate(match[1], int(match[2]))
    yield gate
    gate.close()


def hear(consumer: Consumer, kind: type[MessagingError]) -> MessagingError:
    """The next error of that kind; those of the receiving side may come before it, and again."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            consumer.receive(1, 0.5)
        except (AuthenticationFailed, SettleFailed) as error:
            if isinstance(error, kind):
                return error
    raise AssertionError(f"no {kind.__name__}")


def test_expired_credentials_are_told_and_survived(connect: Connect, url: str, name: str, gate: Gate) -> None:
    connect(Queue(name))
    broker = connect(Queue(name), target=re.sub(r"[^@/:]+:\d+", f"127.0.0.1:{gate.port}", url, count=1))
    broker.publish(name, b"before")
    with broker.subscribe(name, lease=5) as consumer:
        (held,) = take(consumer, 1)
        gate.expired.set()
        with pytest.raises(AuthenticationFailed, match="session_token"):
            broker.publish(name, b"meanwhile")
        assert "session_token" in str(hear(consumer, AuthenticationFailed))
        held.ack()
        assert "delivered again" in str(hear(consumer, SettleFailed))
        gate.expired.clear()
        broker.publish(name, b"after")
        bodies: list[bytes] = []
        deadline = time.monotonic() + 15
        while len(bodies) < 2 and time.monotonic() < deadline:
            with suppress(AuthenticationFailed):  # told while the consumer did not listen
                bodies += [delivery.body for delivery in consumer.receive(2, 0.5)]
        assert sorted(bodies) == [b"after", b"before"]
