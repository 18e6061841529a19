"""Parts as a CloudFormation template, in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from messaging.plan import Part
from messaging_sqs.identifiers import logical_id
from messaging_sqs.parts import FILTER, POLICY, QUEUE, REDRIVE, TOPIC

_NUMBERS = frozenset({"VisibilityTimeout", "MessageRetentionPeriod"})
_TRUTHS = frozenset({"FifoQueue", "FifoTopic", "ContentBasedDeduplication"})


def cloudformation(parts: Sequence[Part]) -> str:
    """The template's text. A queue and its policy are made before the subscription, so that nothing is lost between."""
    resources: dict[str, Any] = {}
    for part in parts:
        if part.kind == QUEUE:
            resources[_queue(part.name)] = _resource("AWS::SQS::Queue", _queue_properties(part), part)
            if POLICY in part.settings:
                topic = part.settings[POLICY]["sendFromTopic"]
                resources[_policy(part.name)] = {
                    "Type": "AWS::SQS::QueuePolicy",
                    "Properties": {
                        "Queues": [{"Ref": _queue(part.name)}],
                        "PolicyDocument": {
                            "Version": "2012-10-17",
                            "Statement": [
                                {
                                    "Sid": "messaging",
                                    "Effect": "Allow",
                                    "Principal": {"Service": "sns.amazonaws.com"},
                                    "Action": "sqs:SendMessage",
                                    "Resource": _arn(part.name),
                                    "Condition": {"ArnEquals": {"aws:SourceArn": {"Ref": _topic(topic)}}},
                                }
                            ],
                        },
                    },
                }
        elif part.kind == TOPIC:
            properties = {"TopicName": part.name, **_values(part.settings)}
            resources[_topic(part.name)] = _resource("AWS::SNS::Topic", properties, part)
        else:
            queue = part.settings["queue"]
            properties = {
                "TopicArn": {"Ref": _topic(part.settings["topic"])},
                "Protocol": "sqs",
                "Endpoint": _arn(queue),
                "RawMessageDelivery": True,
            }
            if FILTER in part.settings:
                properties[FILTER] = json.loads(part.settings[FILTER])
            resource = _resource("AWS::SNS::Subscription", properties, part)
            resources[f"Subscription{logical_id(queue)}"] = {**resource, "DependsOn": _policy(queue)}
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}, indent=2) + "\n"


def _resource(kind: str, properties: Mapping[str, Any], part: Part) -> dict[str, Any]:
    return {"Type": kind, "Metadata": {"Purpose": part.why}, "Properties": dict(properties)}


def _queue_properties(part: Part) -> dict[str, Any]:
    properties = {"QueueName": part.name, **_values(part.settings)}
    redrive = part.settings.get(REDRIVE)
    if redrive is not None:
        target = _arn(redrive["deadLetterTarget"])
        properties[REDRIVE] = {"deadLetterTargetArn": target, "maxReceiveCount": redrive["maxReceiveCount"]}
    return properties


def _values(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in settings.items() if name not in (REDRIVE, POLICY)}
    return {
        name: int(value) if name in _NUMBERS else value == "true" if name in _TRUTHS else value
        for name, value in plain.items()
    }


def _queue(name: str) -> str:
    return f"Queue{logical_id(name)}"


def _topic(name: str) -> str:
    return f"Topic{logical_id(name)}"


def _policy(queue: str) -> str:
    return f"Policy{logical_id(queue)}"


def _arn(queue: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [_queue(queue), "Arn"]}
