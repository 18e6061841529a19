"""The boto3 clients of one driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from messaging_sqs.errors import translate
from messaging_sqs.options import SQSOptions

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

_CONNECTIONS = 100
"""Idle connections kept a client: one for each thread of the producers and consumers that share it."""


class Clients:
    """One session's clients, made up front: clients are thread-safe, making them is not (boto3, "Clients").

    Credentials stay with the session, so botocore refreshes temporary ones. Clients never try again by themselves:
    who retries is decided where the deadline is known. Raises ConfigurationError, AuthenticationFailed.
    """

    sqs: SQSClient
    """For settling, sending, and everything short."""
    polls: SQSClient
    """For receiving: its reads wait as long as a long poll takes."""
    control: SQSClient
    """For topology: answers within the connect timeout, or not at all."""
    sns: SNSClient
    sts: Any

    def __init__(self, options: SQSOptions, endpoint: str | None) -> None:
        self.endpoint = endpoint
        sns_endpoint = options.sns_endpoint_url or endpoint
        try:
            session = boto3.Session(
                aws_access_key_id=options.key_id,
                aws_secret_access_key=options.secret,
                aws_session_token=options.session_token,
                region_name=options.region,
                profile_name=options.profile,
            )
            # An emulator needs a region only because the request signature has one.
            region = session.region_name or ("us-east-1" if endpoint else None)
            short = _config(options, options.read_timeout)
            self.sqs = session.client("sqs", region_name=region, endpoint_url=endpoint, config=short)
            self.polls = session.client(
                "sqs", region, endpoint_url=endpoint, config=_config(options, options.wait_time + options.read_timeout)
            )
            quick = _config(options, max(options.connect_timeout, 1.0))
            self.control = session.client("sqs", region_name=region, endpoint_url=endpoint, config=quick)
            self.sns = session.client("sns", region_name=region, endpoint_url=sns_endpoint, config=short)
            # An emulator has it beside SNS; SNS's own endpoints on AWS (VPC, FIPS) do not.
            sts_endpoint = None if sns_endpoint is None or _of_aws(sns_endpoint) else sns_endpoint
            self.sts = session.client("sts", region_name=region, endpoint_url=sts_endpoint, config=quick)
        except Exception as error:
            raise translate(error, "connect to SQS") from error

    def close(self) -> None:
        """Closes idle connections."""
        for client in (self.sqs, self.polls, self.control, self.sns, self.sts):
            client.close()


def _of_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _config(options: SQSOptions, read_timeout: float) -> Config:
    return Config(
        connect_timeout=options.connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # What the adapter sends it has checked itself; botocore's walk over every attribute costs more than that.
        parameter_validation=False,
    )
