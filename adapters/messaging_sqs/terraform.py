"""Parts as Terraform resources of the provider hashicorp/aws."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from messaging.plan import Part
from messaging_sqs.identifiers import terraform_label
from messaging_sqs.parts import FILTER, POLICY, QUEUE, REDRIVE, TOPIC

_ARGUMENTS = {
    "FifoQueue": "fifo_queue",
    "FifoTopic": "fifo_topic",
    "ContentBasedDeduplication": "content_based_deduplication",
    "VisibilityTimeout": "visibility_timeout_seconds",
    "MessageRetentionPeriod": "message_retention_seconds",
    "KmsMasterKeyId": "kms_master_key_id",
    "DeduplicationScope": "deduplication_scope",
    "FifoThroughputLimit": "fifo_throughput_limit",
}
_HEADER = 'terraform {\n  required_providers {\n    aws = {\n      source = "hashicorp/aws"\n    }\n  }\n}\n'


def terraform(parts: Sequence[Part]) -> str:
    """The file's text. A queue and its policy are made before the subscription, so that nothing is lost between."""
    blocks = [_HEADER]
    for part in parts:
        lines = {QUEUE: _queue, TOPIC: _topic}.get(part.kind, _subscription)(part)
        blocks.append("\n".join([f"# {' '.join(part.why.split())}", *lines]) + "\n")
    return "\n".join(blocks)


def _queue(part: Part) -> Iterator[str]:
    label = terraform_label(part.name)
    yield f'resource "aws_sqs_queue" "{label}" {{'
    yield f"  name = {_text(part.name)}"
    yield from _arguments(part.settings)
    redrive = part.settings.get(REDRIVE)
    if redrive is not None:
        yield "  redrive_policy = jsonencode({"
        yield f"    deadLetterTargetArn = {_queue_arn(redrive['deadLetterTarget'])}"
        yield f"    maxReceiveCount     = {redrive['maxReceiveCount']}"
        yield "  })"
    yield "}"
    if POLICY in part.settings:
        yield ""
        yield f'resource "aws_sqs_queue_policy" "{label}" {{'
        yield f"  queue_url = aws_sqs_queue.{label}.id"
        yield "  policy = jsonencode({"
        yield '    Version = "2012-10-17"'
        yield "    Statement = [{"
        yield '      Sid       = "messaging"'
        yield '      Effect    = "Allow"'
        yield '      Principal = { Service = "sns.amazonaws.com" }'
        yield '      Action    = "sqs:SendMessage"'
        yield f"      Resource  = {_queue_arn(part.name)}"
        yield (
            f'      Condition = {{ ArnEquals = {{ "aws:SourceArn" = '
            f"{_topic_arn(part.settings[POLICY]['sendFromTopic'])} }} }}"
        )
        yield "    }]"
        yield "  })"
        yield "}"


def _topic(part: Part) -> Iterator[str]:
    yield f'resource "aws_sns_topic" "{terraform_label(part.name)}" {{'
    yield f"  name = {_text(part.name)}"
    yield from _arguments(part.settings)
    yield "}"


def _subscription(part: Part) -> Iterator[str]:
    queue = part.settings["queue"]
    label = terraform_label(queue)
    yield f'resource "aws_sns_topic_subscription" "{label}" {{'
    yield f"  topic_arn            = {_topic_arn(part.settings['topic'])}"
    yield '  protocol             = "sqs"'
    yield f"  endpoint             = {_queue_arn(queue)}"
    yield "  raw_message_delivery = true"
    if FILTER in part.settings:
        yield f"  filter_policy        = {_text(part.settings[FILTER])}"
    yield f"  depends_on           = [aws_sqs_queue_policy.{label}]"
    yield "}"


def _arguments(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        argument = _ARGUMENTS.get(name)
        if argument is not None:
            plain = value in ("true", "false") or (argument.endswith("_seconds") and value.isdecimal())
            yield f"  {argument} = {value if plain else _text(value)}"


def _text(value: str) -> str:
    """A quoted string in which nothing is a template."""
    return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def _queue_arn(name: str) -> str:
    return f"aws_sqs_queue.{terraform_label(name)}.arn"


def _topic_arn(name: str) -> str:
    return f"aws_sns_topic.{terraform_label(name)}.arn"
