"""Which messages a channel died of."""

from __future__ import annotations

import re
from collections import deque

from pika import exceptions

from messaging.errors import MessageTooLarge, MessagingError
from messaging_rabbitmq.confirms import Entry
from messaging_rabbitmq.failures import NOT_FOUND, PRECONDITION, REFUSED, channel_failure

_EXCHANGE = re.compile(r"exchange '([^']*)'")
_DEFAULT = {"amq.default": ""}
"""What RabbitMQ calls the exchange without a name."""
_SIZES = re.compile(r"size (\d+) is larger than (?:configured )?max size (\d+)")


def refused_by(reason: BaseException, waiting: deque[Entry]) -> list[tuple[Entry, MessagingError]]:
    """Takes out of `waiting` the messages `reason` is about, each with its error. The others are sent again.

    A missing or forbidden exchange and a message that is too large close the whole channel, whoever else is on it.
    """
    if not isinstance(reason, exceptions.ChannelClosedByBroker):
        return []
    text = reason.reply_text
    found = _EXCHANGE.search(text)
    exchange = _DEFAULT.get(found.group(1), found.group(1)) if found else None
    sizes = _SIZES.search(text)
    refused: list[tuple[Entry, MessagingError]] = []
    kept: list[Entry] = []
    for entry in waiting:
        batch, index = entry
        message = batch.messages[index]
        if reason.reply_code in (NOT_FOUND, REFUSED) and batch.route.exchange == exchange:
            if batch.may_retry(index):
                kept.append(entry)
                continue
            refused.append((entry, channel_failure(reason, f"publish to {batch.route.destination!r}")))
        elif reason.reply_code == PRECONDITION and sizes and len(message.body) > int(sizes.group(2)):
            what = f"publish to {batch.route.destination!r}: message {message.id} was refused: {text}"
            refused.append((entry, MessageTooLarge(what)))
        else:
            kept.append(entry)
    waiting.clear()
    waiting.extend(kept)
    return refused
