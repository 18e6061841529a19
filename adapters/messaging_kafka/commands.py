"""Parts as a shell script of the commands that come with Kafka."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from messaging.plan import Part

from .parts import CONSUMER_GROUP, PARTITION_COUNT, REPLICATION, SHARE_GROUP, config_of


def commands(parts: Sequence[Part], bootstrap: str) -> str:
    """For `sh`, with Kafka's bin folder in PATH. What is there stays as it is, so running it twice is harmless.

    A consumer group is made before it has members by setting its position: to the end for a subscription, to the
    beginning for a queue; where it has one already, it is left alone.
    """
    lines = ["#!/bin/sh", "set -eu", f'[ -n "${{BOOTSTRAP:-}}" ] || BOOTSTRAP={shlex.quote(bootstrap)}', ""]
    for part in parts:
        lines.append(f"# {part.kind} {part.name}: {' '.join(part.why.split())}")
        lines += list(_commands(part))
        lines.append("")
    return "\n".join(lines)


def _commands(part: Part) -> Iterator[str]:
    name = shlex.quote(part.name)
    if part.kind == SHARE_GROUP:
        yield (
            f'kafka-configs.sh --bootstrap-server "$BOOTSTRAP" --alter --entity-type groups --entity-name {name} '
            f"--add-config {shlex.quote(_list(part.settings))}"
        )
    elif part.kind == CONSUMER_GROUP:
        topic = shlex.quote(part.settings["topic"])
        where = "--to-earliest" if part.settings["begins"].startswith("with") else "--to-latest"
        groups = 'kafka-consumer-groups.sh --bootstrap-server "$BOOTSTRAP"'
        yield f"{groups} --list | grep -qxF {name} ||"
        yield f"  {groups} --group {name} --topic {topic} --reset-offsets {where} --execute"
    else:
        replication = part.settings.get(REPLICATION)
        options = [f"--partitions {part.settings[PARTITION_COUNT]}"]
        if replication is not None:
            options.append(f"--replication-factor {replication}")
        options += [f"--config {shlex.quote(f'{key}={value}')}" for key, value in config_of(part).items()]
        yield (
            f'kafka-topics.sh --bootstrap-server "$BOOTSTRAP" --create --if-not-exists --topic {name} '
            f"{' '.join(options)}"
        )


def _list(settings: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in settings.items())
