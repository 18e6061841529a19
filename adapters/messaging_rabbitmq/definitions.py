"""Parts as a definitions file, which `rabbitmqctl import_definitions` and the management plugin take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from messaging.plan import Part
from messaging_rabbitmq.parts import BINDING, EXCHANGE, QUEUE


def definitions(parts: Sequence[Part], vhost: str) -> str:
    """The file's text. It names no users and no permissions, and importing it changes nothing that is there."""
    queues: list[dict[str, Any]] = []
    exchanges: list[dict[str, Any]] = []
    bindings: list[dict[str, Any]] = []
    for part in parts:
        settings = dict(part.settings)
        common = {"name": part.name, "vhost": vhost, "durable": True, "auto_delete": False}
        if part.kind == QUEUE:
            queues.append({**common, "arguments": settings})
        elif part.kind == EXCHANGE:
            kind = settings.pop("type")
            exchanges.append({**common, "type": kind, "internal": False, "arguments": settings})
        else:
            bindings.append(
                {
                    "source": settings["source"],
                    "vhost": vhost,
                    "destination": settings["destination"],
                    "destination_type": "queue" if part.kind == BINDING else "exchange",
                    "routing_key": settings["routing_key"],
                    "arguments": {},
                }
            )
    content = {"vhosts": [{"name": vhost}], "queues": queues, "exchanges": exchanges, "bindings": bindings}
    return json.dumps(content, indent=2) + "\n"
