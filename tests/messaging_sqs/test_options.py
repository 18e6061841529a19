"""What the adapter is told, and what it tells of it. Needs no endpoint."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, TokenRetrievalError, UnauthorizedSSOTokenError

import messaging
from messaging.errors import AuthenticationFailed, ConfigurationError
from messaging_sqs import SQSOptions
from messaging_sqs.clients import Clients
from messaging_sqs.errors import translate


def test_options_that_contradict() -> None:
    with pytest.raises(ConfigurationError):
        messaging.connect("sqs://127.0.0.1:9?access_key=a")
    with pytest.raises(ConfigurationError):
        messaging.connect("sqs://127.0.0.1:9?wait_time=21")
    with pytest.raises(ConfigurationError, match="wait_time"):
        messaging.connect("sqs://127.0.0.1:9?wait_tim=1")
    with pytest.raises(ConfigurationError, match="session_token"):
        messaging.connect("sqs://127.0.0.1:9?session_token=x")
    with pytest.raises(ConfigurationError, match="tls"):
        messaging.connect("sqs://?tls=true")
    with pytest.raises(ConfigurationError, match="queue_prefix"):
        messaging.connect("sqs://127.0.0.1:9?queue_prefix=a.b")


@pytest.mark.parametrize("endpoint", ["localhost:9324", "http://user:hidden@localhost:9324", "http://"])
@pytest.mark.parametrize("option", ["endpoint_url", "sns_endpoint_url"])
def test_endpoints_are_urls_without_secrets(option: str, endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be") as raised:
        messaging.connect("sqs://", **{option: endpoint})
    assert "hidden" not in str(raised.value)


def test_secrets_are_not_shown() -> None:
    options = SQSOptions(access_key="id", secret_key="hidden-1", session_token="hidden-2")
    assert "hidden" not in repr(options)
    assert "hidden" not in repr(SQSOptions(username="id", password="hidden-3"))


@pytest.mark.parametrize(
    ("sns", "sts"),
    [
        (None, "https://sts.us-east-1.amazonaws.com"),
        ("https://vpce-1.sns.us-east-1.vpce.amazonaws.com", "https://sts.us-east-1.amazonaws.com"),
        ("http://localhost:4566", "http://localhost:4566"),
    ],
)
def test_the_account_is_asked_of_aws_when_sns_is_there(sns: str | None, sts: str) -> None:
    clients = Clients(SQSOptions(region="us-east-1", access_key="a", secret_key="b", sns_endpoint_url=sns), None)
    try:
        assert clients.sts.meta.endpoint_url == sts
    finally:
        clients.close()


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "ReceiveMessage"),
        ClientError({"Error": {"Code": "RequestExpired", "Message": "expired"}}, "ReceiveMessage"),
        UnauthorizedSSOTokenError(),
        TokenRetrievalError(provider="sso", error_msg="expired"),
    ],
)
def test_expired_credentials_are_told_as_such(error: Exception) -> None:
    translated = translate(error, "receive")
    assert isinstance(translated, AuthenticationFailed)
    assert "access_key" in str(translated)
