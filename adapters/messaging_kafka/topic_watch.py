"""Whether a topic is still the one that was there when its consumer began."""

from __future__ import annotations

import time
from concurrent.futures import Future
from enum import Enum
from typing import Any

from confluent_kafka import KafkaException

from messaging.errors import DestinationNotFound, MessagingError

from .admin import Admin
from .errors import translate

_EVERY = 2.0
"""Seconds between two questions."""


class Change(Enum):
    """What became of a topic."""

    GONE = "gone"
    REMADE = "remade"


class TopicWatch:
    """Asks for the topic's id now and then, without waiting for the answer. For one thread, after it was made.

    A client goes on at its old offset in a topic that was deleted and made again under its name, past what is new
    below it; only the id (KIP-516) tells the two apart.
    """

    def __init__(self, admin: Admin, topic: str) -> None:
        self._admin = admin
        self._topic = topic
        self._id = str(admin.topic_id(topic))  # ids compare by identity
        self._seen = self._id
        self._answer: Future[Any] | None = None
        self._next = time.monotonic() + _EVERY

    def look(self) -> Change | None:
        """What an answer that has come says; REMADE until `accept`."""
        now = time.monotonic()
        if self._answer is None:
            if now >= self._next:
                self._next = now + _EVERY
                try:
                    self._answer = self._admin.ask_topic(self._topic)
                except MessagingError:
                    pass  # the next time
            return None
        if not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        try:
            self._seen = str(answer.result().topic_id)
        except KafkaException as error:
            return Change.GONE if isinstance(translate(error, self._topic), DestinationNotFound) else None
        return None if self._seen == self._id else Change.REMADE

    def accept(self) -> None:
        """From now on it is the new one."""
        self._id = self._seen
