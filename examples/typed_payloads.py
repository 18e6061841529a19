"""Typed payloads: `as_type` makes `delivery.value` a dataclass, a msgspec struct or a pydantic model.

A body that is not what the type says raises DecodeError, and is rejected into the dead-letter queue.
"""

from dataclasses import dataclass

import msgspec

import messaging
from messaging import Queue


@dataclass
class Payment:
    order: int
    cents: int


class Refund(msgspec.Struct):
    order: int
    reason: str = "none given"


types: list[tuple[str, type, object]] = [
    ("payments", Payment, Payment(order=7, cents=1250)),
    ("refunds", Refund, Refund(order=7, reason="broken")),
]

try:
    from pydantic import BaseModel
except ImportError:
    pass
else:

    class Invoice(BaseModel):
        order: int
        lines: list[str] = []

    types.append(("invoices", Invoice, Invoice(order=7, lines=["tea"])))

with messaging.connect(topology=[Queue(name) for name, _, _ in types]) as broker:
    for name, as_type, value in types:
        broker.publish(name, value)
        broker.publish(name, {"order": "not a number"})
        with broker.subscribe(name, as_type=as_type) as consumer:
            settled = 0
            while settled < 2:
                for delivery in consumer.receive(timeout=10):
                    try:
                        print(name, delivery.value)
                        delivery.ack()
                    except messaging.DecodeError as error:
                        print(name, "rejected:", type(error).__name__)
                        delivery.reject(str(error))
                    settled += 1
