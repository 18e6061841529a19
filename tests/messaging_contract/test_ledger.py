"""The oracle: each thing that does not add up is told, and only that."""

from __future__ import annotations

import pytest

from messaging import Delivery, Message, Queue
from messaging.delivery import PlainDelivery
from messaging.errors import BatchPublishFailed, BrokerUnavailable, InvalidMessage, PublishTimeout
from messaging.topology import Source
from messaging_contract.ledger import TEST_ID, Ledger

SOURCE = Source(Queue("q"))


class Arrived(PlainDelivery):
    """A delivery of a message as it is."""

    __slots__ = ()

    def _load(self) -> Message:
        message: Message = self.native
        return message


class Failing:
    """A producer whose publishes raise."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def publish(self, *_args: object, **_options: object) -> str:
        raise self.error

    publish_many = publish


def arrived(message: Message) -> Delivery:
    return Arrived(None, SOURCE, message)  # type: ignore[arg-type]


def ledger(messages: int = 3, keys: int = 1) -> tuple[Ledger, list[Message]]:
    made = Ledger("t", "m")
    return made, made.messages(messages, keys=keys)


def test_balanced() -> None:
    book, messages = ledger()
    book.confirm(message.id for message in messages)
    assert book.missing == {message.id for message in messages}
    book.receive(map(arrived, messages))
    assert str(book.check(ordered=True)) == "balanced"


def test_lost_duplicated_and_reordered() -> None:
    book, (first, second, third) = ledger()
    book.confirm([first.id, second.id, third.id])
    book.receive(map(arrived, [third, first, first]))
    account = book.account()
    assert (account.lost, account.duplicated) == ((second.id,), (first.id,))
    assert account.reordered == ((third.id, first.id),)
    with pytest.raises(AssertionError, match=r"1 lost .*1 duplicated"):
        book.check()
    with pytest.raises(AssertionError, match="reordered"):
        book.check(duplicates=True, ordered=True)


def test_a_redelivery_is_not_reordered_and_other_keys_are_not_compared() -> None:
    book, messages = ledger(4, keys=2)
    book.confirm(message.id for message in messages)
    book.receive(map(arrived, [messages[1], messages[0], messages[2], messages[0], messages[3]]))
    assert book.account().reordered == ()


def test_unexpected() -> None:
    book, (taken, other, _) = ledger()
    book.confirm([taken.id, other.id])
    stranger = Message(b"", id="never-attempted", headers={TEST_ID: "t"})
    book.receive(map(arrived, [taken, other, stranger]))
    assert book.account(only=[taken.id]).unexpected == (other.id, "never-attempted")


def test_foreign_messages_are_ignored() -> None:
    book, _ = ledger(0)
    assert book.receive([arrived(Message(b"", id="x", headers={TEST_ID: "another"}))]) == []
    assert str(book.check()) == "balanced"


def test_what_was_refused_must_not_arrive_and_what_is_unknown_may() -> None:
    book, (refused, unknown, _) = ledger()
    with pytest.raises(InvalidMessage):
        book.publish_one(Failing(InvalidMessage("no")), SOURCE.destination, refused)
    with pytest.raises(PublishTimeout):
        book.publish_one(Failing(PublishTimeout("late")), SOURCE.destination, unknown)
    book.receive(map(arrived, [refused, unknown]))
    account = book.account()
    assert (account.unexpected, account.recovered) == ((refused.id,), (unknown.id,))
    with pytest.raises(AssertionError, match="unexpected"):
        book.check(recovered=True)


def test_a_batch_that_failed_in_part() -> None:
    book, messages = ledger(4)
    errors = {0: InvalidMessage("no"), 1: PublishTimeout("late"), 2: BrokerUnavailable("gone")}
    with pytest.raises(BatchPublishFailed):
        book.publish(Failing(BatchPublishFailed("three of four", errors)), SOURCE.destination, messages)
    assert book.confirmed == {messages[3].id}
    assert book.refused == {messages[0].id}


def test_a_view_has_its_own_receiving_side() -> None:
    book, messages = ledger()
    book.confirm(message.id for message in messages)
    view = book.view("g")
    book.receive(map(arrived, messages))
    assert view.missing == {message.id for message in messages}
