"""An HTTP proxy before the endpoint that answers as AWS does when a token expired or it is asked too often, or holds a
request back.
"""

from __future__ import annotations

from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

_JSON = b'{"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "The security token is expired"}'
_XML = (
    b'<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error><Type>Sender</Type>'
    b"<Code>ExpiredToken</Code><Message>The security token included in the request is expired</Message></Error>"
    b"<RequestId>0</RequestId></ErrorResponse>"
)
"""SNS speaks XML, SQS JSON."""

_THROTTLED = b'{"__type": "com.amazonaws.sqs#RequestThrottled", "message": "The request was denied: too many requests"}'


class Gate:
    """Passes requests on. While `expired` is set it refuses all of them, while `throttled` is set those that send to
    a queue. `holding` is set once a request is held.
    """

    def __init__(self, host: str, port: int) -> None:
        self.expired = Event()
        self.throttled = Event()
        self.holding = Event()
        self._held: dict[str, Event] = {}
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if gate.expired.is_set():
                    kind = self.headers.get("Content-Type", "")
                    self._answer(403, {"Content-Type": kind}, _JSON if "json" in kind else _XML)
                    return
                if gate.throttled.is_set() and self.headers.get("X-Amz-Target", "").endswith(".SendMessageBatch"):
                    self._answer(400, {"Content-Type": self.headers.get("Content-Type", "")}, _THROTTLED)
                    return
                go_on = gate._held.pop(self.headers.get("X-Amz-Target", "").rpartition(".")[2], None)
                if go_on is not None:
                    gate.holding.set()
                    go_on.wait(30)
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

    def hold(self, operation: str) -> Event:
        """Holds the next request of that operation back, until the event is set."""
        self._held[operation] = go_on = Event()
        return go_on

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
