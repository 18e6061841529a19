"""What policies do to the queues and exchanges of this library: which match, and what each of their keys breaks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from messaging.concerns import Concern
from messaging.names import SEPARATOR
from messaging.plan import Part
from messaging_rabbitmq.parts import EXCHANGE, QUEUE

_HARM: Mapping[str, str] = {
    "message-ttl": "what is not received in time is thrown away or dead-lettered without a reason, and a retry whose "
    "delay is longer comes too early",
    "expires": "a queue without consumers for that long is deleted with every message in it",
    "max-length": "a queue that is full refuses publishes, or drops messages where the policy also says so (overflow)",
    "max-length-bytes": "a queue that is full refuses publishes, or drops messages where the policy also says so "
    "(overflow)",
    "overflow": "a policy's overflow wins over that of the queue (reject-publish): drop-head throws the oldest away, "
    "reject-publish-dlx dead-letters a refused publish that its publisher sends again",
    "delivery-limit": "a message that was given back so often is dead-lettered by the broker, without a reason, though "
    "its retry policy has attempts left; the lower of the policy's and the queue's limit counts",
    "dead-letter-exchange": "what the broker dead-letters may go elsewhere than to the dead-letter queue",
    "dead-letter-routing-key": "what the broker dead-letters may go elsewhere than to the dead-letter queue",
    "dead-letter-strategy": "a policy's strategy wins over that of the queue (at-least-once): at-most-once loses dead "
    "letters, and retries that wait, when their target refuses them",
    "consumer-timeout": "a message unsettled for longer closes the consumer's channel and comes again",
    "alternate-exchange": "what no subscription takes goes there instead of back to its publisher, so that "
    "publish(mandatory=True) does not raise Unroutable",
    "federation-upstream": "messages of another cluster come in as well, perhaps twice",
    "federation-upstream-set": "messages of another cluster come in as well, perhaps twice",
    "ha-mode": "mirroring is for classic queues and gone in 4.0; it does nothing for the quorum queues here, which are "
    "replicated by themselves",
}
_WAITS = re.compile(rf"{SEPARATOR}(?:retry|delay){SEPARATOR}\d+$")
_APPLIES: Mapping[str, tuple[str, ...]] = {
    "all": (QUEUE, EXCHANGE),
    "queues": (QUEUE,),
    "quorum_queues": (QUEUE,),
    "exchanges": (EXCHANGE,),
}


def harmful(policies: Sequence[Mapping[str, Any]], parts: Iterable[Part], operator: bool) -> list[Concern]:
    """A concern for each key of a policy that hurts one of `parts`. policies: as the management API lists them."""
    hit: dict[int, list[Part]] = {}
    for part in parts:
        number = _effective(policies, part)
        if number is not None:
            hit.setdefault(number, []).append(part)
    return [
        _concern(policies[number], key, value, matched, operator)
        for number, matched in hit.items()
        for key, value in policies[number]["definition"].items()
        if key in _HARM and _hurts(key, value)
    ]


def _effective(policies: Sequence[Mapping[str, Any]], part: Part) -> int | None:
    """Which policy applies to `part`: of those that match the one with the highest priority."""
    matching = [number for number, policy in enumerate(policies) if _matches(policy, part)]
    return max(matching, key=lambda number: int(policies[number].get("priority", 0)), default=None)


def _matches(policy: Mapping[str, Any], part: Part) -> bool:
    applies = policy.get("apply-to", "all")
    kinds = _APPLIES.get(applies, ())
    if applies == "classic_queues" and part.settings.get("x-queue-type") == "classic":
        kinds = (QUEUE,)
    if part.kind not in kinds or (applies == "quorum_queues" and part.settings.get("x-queue-type") != "quorum"):
        return False
    try:
        return re.search(policy["pattern"], part.name) is not None
    except re.error:  # an expression that Erlang has and Python has not
        return False


def _hurts(key: str, value: Any) -> bool:
    if key == "overflow":
        return bool(value != "reject-publish")
    if key == "dead-letter-strategy":
        return bool(value != "at-least-once")
    return not (key == "delivery-limit" and int(value) < 0)


def _concern(policy: Mapping[str, Any], key: str, value: Any, matched: Sequence[Part], operator: bool) -> Concern:
    kind = "operator policy" if operator else "policy"
    others = f" and {len(matched) - 1} more" if len(matched) > 1 else ""
    waiting = " (a retry or delay waits in it)" if _WAITS.search(matched[0].name) else ""
    clear = f"rabbitmqctl clear_{kind.replace(' ', '_')} -p {policy['vhost']} {policy['name']}"
    return Concern(
        f"{kind} {policy['name']!r}",
        key,
        f"{value}; its pattern {policy['pattern']!r} matches {matched[0]}{waiting}{others}",
        _HARM[key],
        f"narrow its pattern, leave {key} out of it, or: {clear}",
    )
