"""A sequence of broker requests written as a generator and run on the I/O thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from pika import exceptions
from pika.channel import Channel

if TYPE_CHECKING:
    from messaging_rabbitmq.link import Link

Reply = Callable[[Any], None]
Request = Callable[[Channel, Reply], Any]
"""Sends one request on a channel and arranges for the callback to get the broker's reply."""
Steps = Generator[Request, Any, Any]
Finished = Callable[[Any, BaseException | None], None]


class Flow:
    """Runs `steps`: each request it yields is sent, and its reply is what the yield returns.

    An error of the broker closes the channel; it is raised at that yield, and the next request gets a new channel.
    `finished(result, error)` is called once, on the I/O thread, which is the only thread that touches a Flow.
    """

    def __init__(self, link: Link, steps: Steps, finished: Finished) -> None:
        self._link = link
        self._steps = steps
        self._finished: Finished | None = finished
        self._channel: Channel | None = None
        self._request: Request | None = None
        self._resume(lambda: next(steps))

    def _resume(self, advance: Callable[[], Request]) -> None:
        try:
            self._request = advance()
        except StopIteration as stop:
            self._finish(stop.value, None)
        except Exception as error:
            self._finish(None, error)
        else:
            self._send()

    def _send(self) -> None:
        connection = self._link.connection
        if self._channel is None:
            if connection is None or not connection.is_open:
                self._fail(exceptions.ConnectionClosed(0, "not connected"))
                return
            try:
                self._channel = connection.open_channel(self._on_open, self._on_closed)
            except exceptions.AMQPError as error:  # all channels are in use
                self._fail(error)
        elif self._channel.is_open:
            self._ask()

    def _on_open(self, _channel: Channel) -> None:
        self._ask()

    def _ask(self) -> None:
        request = self._request
        assert request is not None
        assert self._channel is not None
        try:
            request(self._channel, self._on_reply)
        except Exception as error:
            self._fail(error)

    def _on_reply(self, reply: Any) -> None:
        self._resume(lambda: self._steps.send(reply))

    def _on_closed(self, _channel: Channel, reason: BaseException) -> None:
        self._channel = None
        if self._finished is not None:
            # pika is still taking the channel down.
            self._link.soon(lambda: self._fail(reason))

    def _fail(self, error: BaseException) -> None:
        self._resume(lambda: self._steps.throw(error))

    def _finish(self, result: Any, error: BaseException | None) -> None:
        finished, self._finished = self._finished, None
        if self._channel is not None and self._channel.is_open:
            self._channel.close()
        if finished is not None:
            finished(result, error)
