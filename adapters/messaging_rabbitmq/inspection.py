"""Looks for parts on the broker and compares them. Creates nothing.

A passive declare tells whether a queue or exchange is there; declaring what is there again compares its arguments, and
names the first that differs. AMQP does not show bindings. A subscription's marker tells which pattern it was declared
with, and not whether it is still bound: deleting a queue by hand takes its bindings and leaves the marker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pika import exceptions

from messaging.plan import Difference, Finding, Part, different, missing
from messaging_rabbitmq.failures import NOT_FOUND, PRECONDITION, REFUSED, channel_failure
from messaging_rabbitmq.flow import Steps
from messaging_rabbitmq.parts import (
    BINDING,
    EXCHANGE,
    QUEUE,
    is_marker,
    marked_pattern,
    marker_source,
)
from messaging_rabbitmq.topology import look, make

_REFUSAL = re.compile(
    r"inequivalent arg '(?P<name>[^']*)'.*but current is "
    r"(?:none|(?:the value )?'(?P<value>.*?)'(?: of type '(?P<type>\w+)')?)",
    re.DOTALL,
)
_UNTOLD_BINDING = (
    "AMQP does not show bindings, only the pattern that each was declared with: look with rabbitmqctl list_bindings, "
    "or make sure of them with messaging topology apply"
)
PATTERN = "pattern"
_UNCOMPARED = "x-consumer-timeout"
_UNTOLD_TIMEOUT = (
    f"RabbitMQ does not compare {_UNCOMPARED}, and keeps that with which a queue was made: look with rabbitmqctl "
    f"list_queues name arguments"
)
_TEXT = ("longstr", "binary")
_BY_POLICY = {"x-max-length": "max_length"}


def inspect(parts: Sequence[Part]) -> Steps:
    """A finding for each part. Raises BrokerUnavailable."""
    findings: list[Finding] = []
    for part in parts:
        if part.kind in (QUEUE, EXCHANGE):
            findings.append((yield from _object(part)))
        else:
            findings.append(_binding(part, findings))
    return findings


def _object(part: Part) -> Steps:
    try:
        yield look(part)
    except exceptions.ChannelClosedByBroker as error:
        # Also what is there, on a node that is down, is "not found", in other words.
        if error.reply_code == NOT_FOUND and f"no {part.kind} " in error.reply_text:
            return missing(part)
        return _untold(part, error)
    except exceptions.AMQPError as error:
        raise channel_failure(error, f"look for {part}") from error
    settings = dict(part.settings)
    differences: dict[str, Difference] = {}
    while True:
        try:
            yield make(part, settings)
            break
        except exceptions.ChannelClosedByBroker as error:
            told = _REFUSAL.search(error.reply_text) if error.reply_code == PRECONDITION else None
            if told is None:
                return _untold(part, error)
            name = told["name"]
            if name in differences:
                break
            wanted = part.settings.get(name, True if name == "durable" else None)
            found = _value(told["value"], told["type"], wanted)
            differences[name] = Difference(name, found, wanted)
            # Asked again with what is there, the broker names the next one.
            settings[name] = found
            if found is None:
                del settings[name]
        except exceptions.AMQPError as error:
            raise channel_failure(error, f"look at {part}") from error
    if is_marker(part) and set(differences) == {"alternate-exchange"}:
        return _marker(part, differences["alternate-exchange"])
    if not differences and _UNCOMPARED in part.settings:
        return Finding(part, "unknown", (), _UNTOLD_TIMEOUT)
    return different(part, differences.values(), _way_out(part, differences))


def _value(text: str | None, kind: str | None, wanted: Any) -> Any:
    """The broker's text as the value that it had. Some refusals leave out its type."""
    if text is None or kind in _TEXT or (kind is None and isinstance(wanted, str)):
        return text
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _way_out(part: Part, names: dict[str, Difference]) -> str:
    text = (
        f"the arguments of {'a queue' if part.kind == QUEUE else 'an exchange'} cannot be changed: declare it as it "
        f"is, or declare another name, let this one be emptied, and delete it"
    )
    options = [option for name, option in _BY_POLICY.items() if name in names]
    if options:
        text += f"; or leave out {' and '.join(options)} and set it by a policy"
    return text


def _marker(part: Part, alternate: Difference) -> Finding:
    """In the words of who declares a subscription."""
    told = Difference(PATTERN, marked_pattern(part, str(alternate.found)), marked_pattern(part, str(alternate.wanted)))
    way_out = (
        f"subscription {marker_source(part)!r} would get the messages of both patterns: declare the pattern that it "
        f"has, choose another group, or drain and delete the topic"
    )
    return Finding(part, "different", (told,), way_out)


def _binding(part: Part, before: Sequence[Finding]) -> Finding:
    """Missing with one of its ends, different with its marker; else AMQP does not tell."""
    ends = {(EXCHANGE, part.settings["source"])}
    ends.add((QUEUE if part.kind == BINDING else EXCHANGE, part.settings["destination"]))
    if any(f.state == "missing" and (f.part.kind, f.part.name) in ends for f in before):
        return missing(part)
    for finding in before:
        if is_marker(finding.part) and marker_source(finding.part) == part.settings["destination"]:
            keys = [Difference("routing_key", d.found, d.wanted) for d in finding.differences if d.setting == PATTERN]
            if keys:
                return different(part, keys, finding.way_out)
    return Finding(part, "unknown", (), _UNTOLD_BINDING)


def _untold(part: Part, error: exceptions.ChannelClosedByBroker) -> Finding:
    if error.reply_code == REFUSED:
        return Finding(part, "unknown", (), f"this user may not look: grant it permission to configure {part.name!r}")
    return Finding(part, "unknown", (), f"the broker answers {error.reply_code}: {' '.join(error.reply_text.split())}")
