"""What botocore raises, as the errors of `messaging.errors`."""

from __future__ import annotations

import math

from botocore import exceptions as boto

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    ConfigurationError,
    DestinationNotFound,
    LeaseLost,
    MessageTooLarge,
    MessagingError,
    PublishFailed,
    TopologyError,
)

MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException"})
_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException", "KMS.AccessDenied"}
)
_PASSING = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "OverLimit",
        "RequestTimeout",
        "ServiceUnavailable",
    }
)
_THROTTLED = frozenset(
    {
        "RequestThrottled",
        "RequestLimitExceeded",
        "Throttled",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "KMS.ThrottlingException",
        "KmsThrottled",
    }
)
_TOO_LARGE = ("BatchRequestTooLong", "MessageTooLong", "must be shorter than")
"""In the code or the text: AWS's, ElasticMQ's, and AWS's again for a queue with a MaximumMessageSize of its own."""
_LOST = frozenset({"ReceiptHandleIsInvalid", "InvalidReceiptHandle", "MessageNotInflight", "InvalidParameterValue"})
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    boto.TokenRetrievalError,
)
"""None found, or those of a role, a program or a login cannot be had any more."""


class Throttled(BrokerUnavailable):
    """AWS is asked more often than it allows."""


def code_of(error: BaseException) -> str:
    """AWS's error code, without the old `AWS.SimpleQueueService.` in front; empty when it is no answer of AWS."""
    if not isinstance(error, boto.ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code if code in MISSING else code.removeprefix("AWS.SimpleQueueService.")


def is_throttling(code: str) -> bool:
    return code.removeprefix("AWS.SimpleQueueService.") in _THROTTLED


def _status(error: boto.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translate(error: BaseException, doing: str) -> MessagingError:
    """The error to raise for `error`, which happened while `doing` ("publish to 'jobs'")."""
    result = _translate(error, doing)
    if result is not error:
        result.__cause__ = error
    return result


def _translate(error: BaseException, doing: str) -> MessagingError:
    if isinstance(error, MessagingError):
        return error
    if isinstance(error, boto.ClientError):
        return refusal(code_of(error), str(error.response.get("Error", {}).get("Message", "")), doing, _status(error))
    if isinstance(error, _NO_CREDENTIALS):
        return AuthenticationFailed(
            f"{doing}: {error}; give access_key and secret_key, or set up boto3's credentials (AWS_PROFILE, a role ...)"
        )
    if isinstance(error, boto.NoRegionError | boto.ProfileNotFound | boto.InvalidRegionError | ValueError):
        return ConfigurationError(f"{doing}: {error}; give region=, profile= or endpoint_url= in the sqs:// URL")
    return BrokerUnavailable(f"{doing}: {error}")


def refusal(code: str, text: str, doing: str, status: int = 400) -> MessagingError:
    """The error for an error code of AWS, of a whole request or of one entry of a batch."""
    said = f"{doing}: {code}: {text}"
    if code in MISSING:
        return DestinationNotFound(f"{said}; declare it, or check region, account and queue_prefix")
    if code in _CREDENTIALS:
        return AuthenticationFailed(f"{said}; check access_key, secret_key, session_token and the clock")
    if code in DENIED:
        return AuthenticationFailed(f"{said}; allow the action in the IAM or queue policy")
    if is_throttling(code):
        return Throttled(said)
    if code in _PASSING or status >= 500:
        return BrokerUnavailable(said)
    if code in ("QueueDeletedRecently", "PurgeQueueInProgress"):
        return TopologyError(f"{said}; AWS wants 60 seconds in between")
    if code == "UnsupportedOperation":
        return TopologyError(said)
    if any(words in said for words in _TOO_LARGE):
        return MessageTooLarge(f"{said}; it was not stored: split it, or set max_message_bytes to what the queue takes")
    return PublishFailed(said)


def lease_lost(code: str, text: str, doing: str, sender_fault: bool) -> MessagingError:
    """The error for one entry of a delete or change-visibility batch."""
    if sender_fault and code.removeprefix("AWS.SimpleQueueService.") in _LOST:
        return LeaseLost(f"{doing}: {code}: {text}; the message is delivered again")
    return BrokerUnavailable(f"{doing}: {code}: {text}") if not sender_fault else refusal(code, text, doing)


def whole_seconds(seconds: float) -> int:
    """SQS counts whole seconds: rounded up, so that nothing comes back early. 1e-6: float noise of clocks."""
    return max(math.ceil(seconds - 1e-6), 0)
