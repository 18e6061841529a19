"""The orders that are published: made up, always the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ITEMS = ("keyboard", "monitor", "desk lamp", "notebook", "headphones", "webcam", "chair")


@dataclass(frozen=True, slots=True)
class Order:
    """number: 1-based, decides which failures are planned. origin: where it was read, for errors; "" when made up."""

    number: int
    value: Mapping[str, Any]
    key: str | None = None
    origin: str = ""

    @property
    def id(self) -> str:
        """The message id, by which the ledger accounts for it."""
        return order_id(self.number)


def order_id(number: int) -> str:
    return f"order-{number:07d}"


def sample_orders(count: int) -> list[Order]:
    """`count` orders of fifty customers, the same ones in every run, so that runs can be compared."""
    return [_sample(number) for number in range(1, count + 1)]


def _sample(number: int) -> Order:
    customer = f"customer-{number * 7 % 50:02d}"
    item = _ITEMS[number % len(_ITEMS)]
    return Order(
        number, {"order": number, "customer": customer, "item": item, "cents": 500 + number * 37 % 9500}, customer
    )
