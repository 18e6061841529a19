"""Kombu on SQS. Its transport sends and deletes one message a call."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import kombu
import kombu.transport.SQS
import pycurl  # noqa: F401  (its consumers need it; missing, the peer is not installed)

from benchmarks.contender import Settings, unique_name
from benchmarks.kombu_runs import KombuRuns
from benchmarks.raw_sqs import client


class KombuSQS(KombuRuns):
    carries = "content type, delivery tag, exchange and base64 of the body, as JSON"
    share = 0.3

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        parts = urlsplit(settings.url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._url = f"sqs://{query.get('access_key', '')}:{query.get('secret_key', '')}@{parts.netloc}"
        self._region = query.get("region", "us-east-1")
        self._urls: dict[str, str] = {}

    def open(self) -> None:
        self._client = client(self.settings)

    def close(self) -> None:
        self._client.close()

    def create(self) -> str:
        name = unique_name("queue")
        self._urls[name] = str(self._client.create_queue(QueueName=name)["QueueUrl"])
        return name

    def delete(self, name: str) -> None:
        self._client.delete_queue(QueueUrl=self._urls.pop(name))

    def connection(self) -> kombu.Connection:
        options = {
            "is_secure": False,
            "region": self._region,
            "wait_time_seconds": 1,
            "polling_interval": 0,
            "visibility_timeout": 30,
            # Without it, it lists every queue of the account first.
            "predefined_queues": {name: {"url": url} for name, url in self._urls.items()},
        }
        return kombu.Connection(self._url, transport_options=options)

    def queue(self, name: str) -> kombu.Queue:
        return kombu.Queue(name)
