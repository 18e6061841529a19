"""Routing patterns as SNS filter policies on the attribute `type`.

Exact: no wildcard, `#`, and `words.#`. Others become a policy that lets through at least what matches (by prefix, or
everything), and the consumer drops the rest. The pattern itself is always a value of the policy too: so what a
subscription was declared with can be read back from the broker.
"""

from __future__ import annotations

import json
from typing import Any

from messaging.patterns import MATCH_ALL, matches


def filter_policy(pattern: str) -> str | None:
    """The FilterPolicy for `pattern` as JSON, or None when every message is wanted.

    SNS: `prefix` and `exists` matching; a message without the attribute passes only `{"exists": false}`.
    """
    if pattern == MATCH_ALL:
        return None
    words = pattern.split(".")
    fixed = words[: next((i for i, word in enumerate(words) if word in ("*", "#")), len(words))]
    values: list[Any] = [pattern]
    if len(fixed) < len(words):
        if fixed:
            stem = ".".join(fixed)
            values.append({"prefix": f"{stem}."})
            if matches(pattern, stem):
                values.append(stem)
        else:
            # In this order, because moto looks no further when a value is tried on a missing attribute.
            values.insert(0, {"exists": True})
            if matches(pattern, ""):
                values.insert(0, {"exists": False})
    return json.dumps({"type": values}, separators=(",", ":"))
