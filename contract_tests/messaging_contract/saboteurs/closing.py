"""Saboteurs of what is committed, and of the close."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from messaging.delivery import Delivery
from messaging_contract.saboteurs.wrap import HonestReceiver


class _Remembers(HonestReceiver):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._delivered: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        self._delivered += deliveries
        return deliveries


class _Gathers(HonestReceiver):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._acked: list[Delivery] = []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.inner.extend(deliveries[0], 30.0)  # which a closed one refuses
        self._acked += deliveries


class CommitsPastAGap(_Remembers):
    """Acking a message acks everything delivered before it."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        last = max(self._delivered.index(d) for d in deliveries if d in self._delivered)
        self.inner.ack(self._delivered[: last + 1])


class CommitsUpToAGap(_Remembers):
    """Acks a message only when everything delivered before it is acked: the others come again after a close."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._acked: list[Delivery] = []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._acked += deliveries
        while self._delivered and self._delivered[0] in self._acked:
            self.inner.ack([self._delivered.pop(0)])


class TakesWhileItCloses(HonestReceiver):
    """Drops what comes while it closes."""

    def close(self) -> None:
        self.inner.ack(super().receive(1, 0.2))
        super().close()


class KeepsOnClose(HonestReceiver):
    """Does not give unsettled messages back when it closes."""

    def close(self) -> None:
        pass


class AcksOnClose(_Remembers):
    """Acks everything it holds when it closes."""

    def close(self) -> None:
        try:
            self.inner.ack(self._delivered)
        finally:
            self.inner.close()


class HangsOnClose(HonestReceiver):
    """Does not notice that it was closed while it waits."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        self._wait_until = time.monotonic() + timeout * 40
        return super().receive(max_messages, timeout)

    def close(self) -> None:
        time.sleep(max(getattr(self, "_wait_until", 0.0) - time.monotonic(), 0.0))
        super().close()


class LosesUnreadOnClose(HonestReceiver):
    """Takes twice what was asked for, and loses the rest when it closes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._spare: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = self._spare or super().receive(max_messages * 2, timeout)
        self._spare = found[max_messages:]
        return found[:max_messages]

    def close(self) -> None:
        try:
            self.inner.ack(self._spare)
        finally:
            self.inner.close()


class AcksWhenItCloses(_Gathers):
    """Keeps acks to itself until it is closed, and has nothing to flush."""

    def close(self) -> None:
        try:
            self.inner.ack(self._acked)
        finally:
            self.inner.close()


class ForgetsBufferedAcks(_Gathers):
    """Gathers acks, and forgets at close those that it has not sent yet."""

    def flush(self, timeout: float) -> None:
        self.inner.ack(self._acked)
        self._acked.clear()
        super().flush(timeout)
