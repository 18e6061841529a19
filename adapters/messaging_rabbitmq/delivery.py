"""A delivery that decodes its properties when somebody asks for them."""

from __future__ import annotations

import uuid
from typing import Any

import pika

from messaging.delivery import UNSET, Delivery, Settler
from messaging.message import Message
from messaging.topology import Source
from messaging_rabbitmq import wire


class RabbitMQDelivery(Delivery):
    """One basic.deliver. `epoch` names the channel that `tag` belongs to: tags of an earlier one mean nothing."""

    __slots__ = (
        "_attempt",
        "_body",
        "_decoded",
        "_message",
        "_properties",
        "_redelivered",
        "_settled",
        "_value",
        "_where",
        "as_type",
        "epoch",
        "settler",
        "source",
        "tag",
    )

    def __init__(
        self,
        settler: Settler,
        source: Source,
        epoch: int,
        tag: int,
        redelivered: bool,
        where: bytes,
        properties: bytes,
        body: bytes,
    ) -> None:
        self.settler = settler
        self.source = source
        self.as_type = None
        self._message = None
        self._value = UNSET
        self._settled = False
        self.epoch = epoch
        self.tag = tag
        self._redelivered = redelivered
        self._where = where
        self._properties = properties
        self._body = body
        self._attempt: int | None = None
        self._decoded: wire.Properties | None = None

    @property
    def attempt(self) -> int:
        """Attempts before this copy was made + deliveries of this copy. A classic queue only tells "again"."""
        if self._attempt is None:
            if b"x-messaging-attempt" in self._properties or b"x-delivery-count" in self._properties:
                headers = self._read().headers
                count = wire.whole(headers.get("x-delivery-count"))
                before = wire.whole(headers.get(wire.ATTEMPT)) or 0
                self._attempt = before + (int(self._redelivered) if count is None else count) + 1
            else:
                self._attempt = 2 if self._redelivered else 1
        return self._attempt

    @attempt.setter
    def attempt(self, value: int) -> None:
        self._attempt = value

    @property
    def native(self) -> Any:
        """pika's BasicProperties."""
        read = self._read()
        return pika.BasicProperties(**{name: getattr(read, name) for name in wire.Properties.__slots__})

    @property
    def body(self) -> bytes:
        return self._body

    @property
    def expires_at(self) -> float | None:
        # Asked of every delivery: most have none, and need not be decoded to know that.
        return self.message.expires_at if b"x-messaging-expires-at" in self._properties else None

    @property
    def exchange_and_key(self) -> tuple[str, str]:
        """Where it came through."""
        size = self._where[0]
        return wire.text(self._where[1 : 1 + size]), wire.text(self._where[2 + size :])

    def _read(self) -> wire.Properties:
        if self._decoded is None:
            self._decoded = wire.decode_properties(self._properties)
        return self._decoded

    def _load(self) -> Message:
        read = self._read()
        headers = read.headers
        milliseconds = wire.whole(headers.get(wire.TIMESTAMP))
        expires = wire.whole(headers.get(wire.EXPIRES))
        key = headers.get(wire.KEY)
        type_ = read.type
        if type_ is None:
            exchange, routing_key = self.exchange_and_key
            # A program that sets no type still chose a routing key, which is what the pattern matched.
            type_ = routing_key if exchange and exchange == self.source.destination.name else ""
        return Message(
            self._body,
            key=None if key is None else wire.text(key),
            type=type_,
            headers=wire.visible_headers(headers) if headers else {},
            id=read.message_id or uuid.uuid4().hex,
            content_type=read.content_type,
            timestamp=float(read.timestamp or 0) if milliseconds is None else milliseconds / 1000,
            correlation_id=read.correlation_id,
            reply_to=read.reply_to,
            expires_at=None if expires is None else expires / 1000,
        )
