"""Emulators of Amazon SQS, two of them with SNS. The suite runs on several, because they differ."""

from __future__ import annotations

from typing import Any, ClassVar

from messaging_contract.containers.base import BrokerContainer
from messaging_contract.containers.ports import HOST


class SQSContainer(BrokerContainer):
    """An emulator with what SQS calls a region and keys: any will do, and all clients use the same."""

    # All keep queues and messages in memory.
    keeps_data: ClassVar[bool] = False
    options: ClassVar[str] = ""

    @property
    def url(self) -> str:
        return f"sqs://{HOST}:{self.port}?region=us-east-1&access_key=test&secret_key=test{self.options}"

    def answers(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped, unused-ignore]

        client = self._client()
        try:
            client.list_queues()
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def _client(self) -> Any:
        import boto3  # type: ignore[import-untyped, unused-ignore]
        from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

        return boto3.client(
            "sqs",
            endpoint_url=f"http://{HOST}:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1}),
        )


class ElasticMQContainer(SQSContainer):
    """ElasticMQ: queues only, and the one that enforces SQS's limits."""

    port_inside: ClassVar[int] = 9324
    # Its strict limits are those of before August 2025.
    options: ClassVar[str] = "&max_message_bytes=262144"

    def files(self) -> dict[str, bytes]:
        return {"/opt/elasticmq.conf": _ELASTICMQ_CONF}


class MinistackContainer(SQSContainer):
    """ministack: SQS and SNS, the fastest."""

    port_inside: ClassVar[int] = 4566

    def environment(self) -> dict[str, str]:
        # Its default is a line a request.
        return {"GATEWAY_PORT": str(self.port_inside), "LOG_LEVEL": "WARNING"}


class MotoContainer(SQSContainer):
    """moto's server: SQS and SNS."""

    port_inside: ClassVar[int] = 5000
    # Nothing in it keeps two receives at the same moment from taking the same message.
    options: ClassVar[str] = "&receivers=1"
    # As the container's first process it has no handler for SIGTERM, and would be waited for in vain.
    stop_signal: ClassVar[str | None] = "SIGINT"


_ELASTICMQ_CONF = b"""\
include classpath("application.conf")

# Queue URLs repeat the host and port that the client used.
node-address.host = "*"

rest-sqs {
  bind-hostname = "0.0.0.0"
  bind-port = 9324
  sqs-limits = strict
}
"""
