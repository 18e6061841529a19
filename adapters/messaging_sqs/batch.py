"""Batch calls, with an outcome for each entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from messaging.errors import BrokerUnavailable, MessageTooLarge, MessagingError, PublishFailed, SettleFailed
from messaging_sqs.errors import code_of, is_throttling, refusal, translate

BATCH = 10
"""Entries in one call (SQS and SNS quotas)."""

Call = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
Failure = Callable[[str, str, str, bool], MessagingError]
"""Makes the error of one failed entry from code, text, what was done, and whether the sender is to blame."""

Outcomes = list[MessagingError | None]


def publish_failure(code: str, text: str, doing: str, sender_fault: bool) -> MessagingError:
    """The error of one entry of a send or publish batch."""
    if sender_fault or is_throttling(code):
        return refusal(code, text, doing)
    return BrokerUnavailable(f"{doing}: {code}: {text}")


def call_batch(call: Call, entries: Sequence[dict[str, Any]], doing: str, failure: Failure) -> Outcomes:
    """Makes one call for `entries` (at most 10) and returns the outcome of each: None when it succeeded.

    Gives each entry its Id. When the call as a whole is refused because of its content, the entries go one by one, in
    order, so that a bad one does not fail its neighbours. A retryable error (no connection, throttled) is the
    outcome of every entry; nobody knows whether they were carried out.
    """
    for index, entry in enumerate(entries):
        entry["Id"] = str(index)
    try:
        answer = call(list(entries))
    except Exception as error:
        translated = translate(error, doing)
        code = code_of(error)
        if code and isinstance(translated, PublishFailed | MessageTooLarge):
            if len(entries) > 1:
                return [outcome for entry in entries for outcome in call_batch(call, [entry], doing, failure)]
            translated = failure(code, str(error), doing, True)
            translated.__cause__ = error
            return [translated]
        return [translated] * len(entries)
    failed = answer.get("Failed")
    if not failed:
        if len(answer.get("Successful", ())) == len(entries):
            return [None] * len(entries)
        failed = ()
    # An entry in neither list was not confirmed.
    outcomes: Outcomes = [BrokerUnavailable(f"{doing}: the broker said nothing about it")] * len(entries)
    for entry in answer.get("Successful", ()):
        outcomes[int(entry["Id"])] = None
    for entry in failed:
        code, text = str(entry.get("Code", "")), str(entry.get("Message", ""))
        outcomes[int(entry["Id"])] = failure(code, text, doing, bool(entry.get("SenderFault", True)))
    return outcomes


def settle_error(error: MessagingError) -> SettleFailed:
    """`error` as what a consumer is told about a settlement."""
    if isinstance(error, SettleFailed):
        return error
    result = SettleFailed(f"{error}; the message is delivered again")
    result.__cause__ = error
    return result
