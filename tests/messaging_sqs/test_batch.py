"""Every entry of a batch has its own outcome."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

from messaging.errors import BrokerUnavailable, DestinationNotFound, LeaseLost, PublishFailed
from messaging_sqs.batch import call_batch, publish_failure
from messaging_sqs.errors import Throttled, lease_lost, whole_seconds


def entries(count: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in range(count)]


def refused(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "SendMessageBatch",
    )


def test_a_failed_entry_fails_alone() -> None:
    failed = [
        {"Id": "1", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"},
        {"Id": "2", "SenderFault": False, "Code": "InternalError", "Message": "later"},
    ]
    answer = {"Successful": [{"Id": "0"}], "Failed": failed}
    outcomes = call_batch(lambda _entries: answer, entries(4), "send", publish_failure)
    assert [type(outcome) for outcome in outcomes] == [type(None), PublishFailed, BrokerUnavailable, BrokerUnavailable]


def test_an_entry_that_is_throttled_says_so_whoever_is_to_blame() -> None:
    failed = [
        {"Id": "0", "SenderFault": True, "Code": "AWS.SimpleQueueService.RequestThrottled", "Message": "no"},
        {"Id": "1", "SenderFault": False, "Code": "ThrottlingException", "Message": "no"},
        {"Id": "2", "SenderFault": False, "Code": "InternalError", "Message": "no"},
    ]
    outcomes = call_batch(lambda _entries: {"Failed": failed}, entries(3), "send", publish_failure)
    assert [type(outcome) for outcome in outcomes] == [Throttled, Throttled, BrokerUnavailable]


def test_a_refused_call_goes_entry_by_entry() -> None:
    def call(batch: list[dict[str, Any]]) -> dict[str, Any]:
        if any(entry["n"] == 1 for entry in batch):
            raise refused("InvalidMessageContents")
        return {"Successful": [{"Id": entry["Id"]} for entry in batch]}

    outcomes = call_batch(call, entries(3), "send", publish_failure)
    assert [type(outcome) for outcome in outcomes] == [type(None), PublishFailed, type(None)]


def test_a_refused_call_of_one_entry_is_that_entrys_refusal() -> None:
    def call(_batch: list[dict[str, Any]]) -> dict[str, Any]:
        raise refused("ReceiptHandleIsInvalid")

    assert [type(outcome) for outcome in call_batch(call, entries(2), "ack", lease_lost)] == [LeaseLost, LeaseLost]


def test_what_concerns_the_whole_call_is_everybodys_outcome() -> None:
    for error, expected in (
        (EndpointConnectionError(endpoint_url="http://nowhere"), BrokerUnavailable),
        (refused("Throttling"), Throttled),
        (refused("Whatever", 503), BrokerUnavailable),
        (refused("AWS.SimpleQueueService.NonExistentQueue"), DestinationNotFound),
    ):
        calls = []

        def call(batch: list[dict[str, Any]], error: Exception = error, calls: list[Any] = calls) -> dict[str, Any]:
            calls.append(batch)
            raise error

        outcomes = call_batch(call, entries(3), "send", publish_failure)
        assert [type(outcome) for outcome in outcomes] == [expected] * 3
        assert len(calls) == 1


def test_an_old_receipt_is_a_lost_lease() -> None:
    failed = [{"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": "old"}]
    outcomes = call_batch(lambda _e: {"Successful": [], "Failed": failed}, entries(1), "ack", lease_lost)
    assert isinstance(outcomes[0], LeaseLost)


def test_seconds_are_rounded_up() -> None:
    assert [whole_seconds(s) for s in (0, 0.001, 1, 1.0000001, 1.2)] == [0, 1, 1, 1, 2]
