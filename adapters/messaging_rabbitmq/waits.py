"""Which wait queues this process has made sure of."""

from __future__ import annotations

from collections.abc import Callable

from messaging_rabbitmq.flow import Finished
from messaging_rabbitmq.link import Link
from messaging_rabbitmq.parts import Version, WaitQueue
from messaging_rabbitmq.topology import declare_wait_queue

Prepared = Callable[[BaseException | None], None]


class WaitQueues:
    """Declares wait queues on first use on a connection. Only the I/O thread of `link` uses it."""

    def __init__(self, link: Link, version: Version) -> None:
        self._link = link
        self._version = version
        self._ready: set[str] = set()

    def ready(self, wait: WaitQueue) -> bool:
        """Whether messages may be sent to `wait`."""
        return wait.name in self._ready

    def prepare(self, wait: WaitQueue, prepared: Prepared) -> None:
        """Declares `wait`; `prepared` gets None or what is in the way."""

        def finished(_result: object, error: BaseException | None) -> None:
            if error is None:
                self._ready.add(wait.name)
            prepared(error)

        done: Finished = finished
        self._link.spawn(declare_wait_queue(wait, self._version), done)

    def forget(self, wait: WaitQueue) -> None:
        """It vanished: the next use declares it again."""
        self._ready.discard(wait.name)

    def clear(self) -> None:
        """The connection was lost; the broker may have lost everything with it."""
        self._ready.clear()
