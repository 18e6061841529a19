"""boto3 as well as it can be used: batches of ten on as many threads as anybroker has."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config

from benchmarks.contender import PAYLOAD, Arrival, Contender, Meter, Run, Settings, unique_name

BATCH = 10
TEXT = PAYLOAD.decode()


class RawSQS(Contender):
    name = "boto3"

    def open(self) -> None:
        self.client = client(self.settings)

    def close(self) -> None:
        self.client.close()

    def create(self) -> str:
        return str(self.client.create_queue(QueueName=unique_name("queue"))["QueueUrl"])

    def delete(self, name: str) -> None:
        self.client.delete_queue(QueueUrl=name)

    def publish_many(self, name: str, count: int) -> Run:
        def send(first: int) -> None:
            entries = [{"Id": str(n), "MessageBody": TEXT} for n in range(min(BATCH, count - first))]
            answer = self.client.send_message_batch(QueueUrl=name, Entries=entries)
            if answer.get("Failed"):
                raise RuntimeError(str(answer["Failed"]))

        with ThreadPoolExecutor(self.settings.senders) as threads:
            start = time.perf_counter()
            list(threads.map(send, range(0, count, BATCH)))
            return Run(count, time.perf_counter() - start)

    def publish_each(self, name: str, count: int) -> Run:
        start = time.perf_counter()
        for _ in range(count):
            self.client.send_message(QueueUrl=name, MessageBody=TEXT)
        return Run(count, time.perf_counter() - start)

    def consume(self, name: str, count: int) -> Run:
        meter, lock, runs = Meter(count), Lock(), list[Run]()

        def work() -> None:
            while not meter.done:
                messages = self._receive(name)
                if not messages:
                    continue
                with lock:
                    meter.add(len(messages))
                for message in messages:
                    len(message["Body"])
                entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
                answer = self.client.delete_message_batch(QueueUrl=name, Entries=entries)
                if answer.get("Failed"):
                    raise RuntimeError(str(answer["Failed"]))
                with lock:
                    # The others may wait in a long poll for nothing: the last deletion is the end.
                    runs.append(meter.run())

        # anybroker receives on `receivers` threads and deletes on as many more.
        workers = self.settings.receivers * 2
        with ThreadPoolExecutor(workers) as threads:
            for future in [threads.submit(work) for _ in range(workers)]:
                future.result()
        return runs[-1]

    def latencies(self, name: str, count: int) -> list[float]:
        arrival, stop = Arrival(), Event()

        def read() -> None:
            while not stop.is_set():
                for message in self._receive(name):
                    arrival.mark()
                    self.client.delete_message(QueueUrl=name, ReceiptHandle=message["ReceiptHandle"])

        thread = Thread(target=read)
        thread.start()
        try:
            return arrival.ping(lambda: self.client.send_message(QueueUrl=name, MessageBody=TEXT), count)
        finally:
            stop.set()
            thread.join()

    def _receive(self, name: str) -> list[Any]:
        answer = self.client.receive_message(QueueUrl=name, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1)
        return list(answer.get("Messages", ()))


def client(settings: Settings) -> Any:
    """A boto3 client for the benchmark's URL."""
    parts = urlsplit(settings.url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return boto3.client(
        "sqs",
        region_name=query.get("region"),
        endpoint_url=f"http://{parts.netloc}" if parts.netloc else query.get("endpoint_url"),
        aws_access_key_id=query.get("access_key"),
        aws_secret_access_key=query.get("secret_key"),
        config=Config(max_pool_connections=max(settings.senders, settings.receivers * 2), parameter_validation=False),
    )
