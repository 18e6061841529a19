"""Messages as other programs send them: put there with the bare client library, without anything of ours."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from messaging.topology import Source
from messaging_contract.harness import Foreign


def foreign_for(url: str) -> Foreign | None:
    """How another program puts a message into a queue of the broker at `url`; None for a scheme not known here."""
    scheme = url.partition("://")[0]
    make = {"rabbitmq": _rabbitmq, "kafka": _kafka, "sqs": _sqs}.get(scheme)
    return None if make is None else make(url)


def _rabbitmq(url: str) -> Foreign:
    def put(source: Source, body: bytes, headers: dict[str, str]) -> None:
        import pika

        parameters = pika.URLParameters("amqp" + url.removeprefix("rabbitmq").split("?")[0].rstrip("/") + "/%2F")
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            properties = pika.BasicProperties(headers=dict(headers)) if headers else None
            channel.basic_publish("", source.name, body, properties, mandatory=True)

    return put


def _kafka(url: str) -> Foreign:
    def put(source: Source, body: bytes, headers: dict[str, str]) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": urlsplit(url).netloc, "acks": "all"})
        producer.produce(source.destination.name, body, headers={k: v.encode() for k, v in headers.items()})
        left = producer.flush(20)
        assert left == 0, f"the message of another program was not stored in {source}"

    return put


def _sqs(url: str) -> Foreign:
    def put(source: Source, body: bytes, headers: dict[str, str]) -> None:
        import boto3

        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        client = boto3.client(
            "sqs",
            endpoint_url=f"http://{parts.netloc}",
            region_name=query.get("region", "us-east-1"),
            aws_access_key_id=query.get("access_key", "test"),
            aws_secret_access_key=query.get("secret_key", "test"),
        )
        try:
            queue = client.get_queue_url(QueueName=source.name.replace(".", "__"))["QueueUrl"]
            client.send_message(
                QueueUrl=queue,
                MessageBody=body.decode(),
                MessageAttributes={k: {"DataType": "String", "StringValue": v} for k, v in headers.items()},
            )
        finally:
            client.close()

    return put
