"""An honest memory broker with transactions, for the clauses about them, and saboteurs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from messaging.capabilities import Capabilities, native
from messaging.delivery import Delivery
from messaging.driver import Done, Outgoing, Receiver, Sender, TransactionalReceiver
from messaging.errors import TransactionAborted, UnsupportedCapability
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.rejection import Rejection
from messaging.topology import Queue, Source
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver
from messaging_memory import MemoryServer


class KeepingSender(Sender):
    """Keeps what is sent until the transaction is committed."""

    def __init__(self, inner: Sender) -> None:
        self.inner = inner
        self.kept: list[tuple[Sequence[Message], Outgoing]] = []

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        self.kept.append((list(messages), outgoing))
        for index in range(len(messages)):
            done(index, None)

    def release(self) -> None:
        for messages, outgoing in self.kept:
            self.inner.send(messages, outgoing, lambda _index, _error: None)
        self.kept.clear()

    def close(self, timeout: float) -> None:
        self.inner.close(timeout)


class TransactingReceiver(HonestReceiver, TransactionalReceiver):
    """One lock of the memory broker makes a commit one step."""

    sender: KeepingSender

    def __init__(self, inner: Receiver, source: Source, server: MemoryServer, sender: Sender) -> None:
        super().__init__(inner, source, server)
        self.sender = KeepingSender(sender)
        self.rejected: list[tuple[Delivery, Rejection]] = []

    def begin(self) -> None:
        self.sender.kept.clear()
        self.rejected.clear()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """The commit does it."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        raise UnsupportedCapability("in a transaction, raise instead")

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self.rejected += [(delivery, why) for delivery in deliveries]

    def commit(self, deliveries: Sequence[Delivery], timeout: float) -> None:
        with self.server.changed:
            if not all(self.inner.is_live(delivery) for delivery in deliveries):
                raise TransactionAborted("some of it is somebody else's")
            self.sender.release()
            for delivery, why in self.rejected:
                self.inner.reject([delivery], why)
            done = [delivery for delivery, _why in self.rejected]
            self.inner.ack([delivery for delivery in deliveries if delivery not in done])

    def abort(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self.begin()
        return list(deliveries)


class TransactingDriver(HonestDriver):
    """Has transactions of topics."""

    Receiver: ClassVar[type[TransactingReceiver]] = TransactingReceiver
    capabilities: Capabilities = replace(HonestDriver.capabilities, transactions=native())

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        return HonestReceiver(self.inner.receiver(source, options), source, self.server)

    def transactional_receiver(self, source: Source, options: ConsumerOptions) -> TransactingReceiver:
        if isinstance(source.destination, Queue):
            raise UnsupportedCapability("no transactions of queues: use at-least-once")
        inner, sender = self.inner.receiver(source, options), self.inner.sender(ProducerOptions())
        return self.Receiver(inner, source, self.server, sender)


class ShowsBeforeTheCommit(TransactingReceiver):
    """What is published in a transaction is seen at once."""

    def begin(self) -> None:
        super().begin()
        self.sender.send = self.sender.inner.send  # type: ignore[method-assign]


class KeepsWhatWasAborted(TransactingReceiver):
    """What was published in a transaction that failed appears with the next one."""

    def begin(self) -> None:
        self.rejected.clear()


class SettlesWhenAborting(TransactingReceiver):
    """What was received in a transaction that failed never comes again."""

    def abort(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self.begin()
        self.inner.ack(deliveries)
        return []


class ForgetsToSettle(TransactingReceiver):
    """A commit shows what was published and settles nothing."""

    def commit(self, deliveries: Sequence[Delivery], timeout: float) -> None:
        self.sender.release()


class TurnsAround(TransactingReceiver):
    """After a transaction that failed, its messages come again the other way round."""

    def abort(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return super().abort(deliveries)[::-1]


class SettlesAllItHandedOut(TransactingReceiver):
    """A commit settles also what was given back unhandled."""

    def __init__(self, inner: Receiver, source: Source, server: MemoryServer, sender: Sender) -> None:
        super().__init__(inner, source, server, sender)
        self.handed_out: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        self.handed_out += deliveries
        return deliveries

    def commit(self, deliveries: Sequence[Delivery], timeout: float) -> None:
        super().commit(deliveries, timeout)
        self.inner.ack(self.handed_out)


class RejectsAtOnce(TransactingReceiver):
    """A dead letter is there before the transaction is committed, and what it was is settled with the rest again."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        for delivery in deliveries:
            self.inner.reject([delivery], why)
        super().reject(deliveries, why)

    def commit(self, deliveries: Sequence[Delivery], timeout: float) -> None:
        with self.server.changed:
            if not all(self.inner.is_live(delivery) for delivery in deliveries):
                self.sender.kept.clear()
                return
        super().commit(deliveries, timeout)


class LetsOneGoBack(TransactingReceiver):
    """A nack in a transaction is carried out, whatever becomes of that."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self.inner.nack(deliveries, delay)


class TransactsQueues(TransactingDriver):
    """Says that queues have transactions too."""

    def transactional_receiver(self, source: Source, options: ConsumerOptions) -> TransactingReceiver:
        return self.Receiver(
            self.inner.receiver(source, options), source, self.server, self.inner.sender(ProducerOptions())
        )
