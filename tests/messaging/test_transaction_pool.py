"""What the pool remembers between two transactions, on transactions whose outcome the test decides on."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Self

import pytest

from messaging import NO_RETRY, BrokerUnavailable
from messaging.handling import Handling
from messaging.transaction_pool import TransactionPool


class _Delivery:
    def __init__(self, attempt: int) -> None:
        self.id, self.attempt, self.rejected = "1", attempt, False

    def reject(self, reason: str, error: BaseException | None = None) -> None:
        self.rejected = True


class _Transaction:
    """It happens; `known`: whether that is said."""

    def __init__(self, delivery: _Delivery, known: bool = True) -> None:
        self._delivery, self._known, self._aborted = delivery, known, False

    def receive(self, *_: Any) -> Sequence[_Delivery]:
        return [self._delivery]

    def abort(self, failed: _Delivery) -> None:
        self._aborted = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not (self._known or self._aborted):
            raise BrokerUnavailable("it may have happened")


def test_a_message_that_comes_again_after_it_was_given_up_is_handled() -> None:
    handled: list[int] = []

    def handle(delivery: _Delivery, transaction: object) -> None:
        handled.append(delivery.attempt)
        if len(handled) == 1:
            raise ValueError("a defect, which is mended before the redrive")

    first, dead, redriven = _Delivery(1), _Delivery(2), _Delivery(1)
    transactions = [_Transaction(first), _Transaction(dead, known=False), _Transaction(redriven)]
    consumer: Any = SimpleNamespace(transaction=lambda: transactions.pop(0), batch=10, source="orders")
    pool = TransactionPool(consumer, Handling(handle, NO_RETRY), "pool")
    pool._transact()
    with pytest.raises(BrokerUnavailable):
        pool._transact()
    pool._transact()
    assert (first.rejected, dead.rejected, redriven.rejected) == (False, True, False)
    assert handled == [1, 1]
