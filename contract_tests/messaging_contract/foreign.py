"""Messages as other programs send them: put there with the bare client library, connected as the adapter connects."""

from __future__ import annotations

from messaging.config import build_options, parse_url
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

        from messaging_rabbitmq import RabbitMQOptions

        options = build_options(RabbitMQOptions, parse_url(url).options, "rabbitmq")
        with pika.BlockingConnection([options.parameters(*address) for address in options.addresses()]) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            properties = pika.BasicProperties(headers=dict(headers)) if headers else None
            channel.basic_publish("", source.name, body, properties, mandatory=True)

    return put


def _kafka(url: str) -> Foreign:
    def put(source: Source, body: bytes, headers: dict[str, str]) -> None:
        from confluent_kafka import Producer

        from messaging_kafka import KafkaOptions

        options = build_options(KafkaOptions, parse_url(url).options, "kafka")
        producer = Producer(options.client(acks="all"))
        producer.produce(source.destination.name, body or None, headers={k: v.encode() for k, v in headers.items()})
        left = producer.flush(20)
        assert left == 0, f"the message of another program was not stored in {source}"

    return put


def _sqs(url: str) -> Foreign:
    def put(source: Source, body: bytes, headers: dict[str, str]) -> None:
        if not body:
            raise ValueError("SQS has no message without a body")
        from messaging_sqs import SQSOptions
        from messaging_sqs.clients import Clients
        from messaging_sqs.naming import queue_name

        options = build_options(SQSOptions, parse_url(url).options, "sqs")
        clients = Clients(options, options.endpoints[0])
        try:
            name = queue_name(source.name, source.ordered, options.queue_prefix)
            clients.sqs.send_message(
                QueueUrl=clients.sqs.get_queue_url(QueueName=name)["QueueUrl"],
                MessageBody=body.decode(),
                MessageAttributes={k: {"DataType": "String", "StringValue": v} for k, v in headers.items()},
            )
        finally:
            clients.close()

    return put
