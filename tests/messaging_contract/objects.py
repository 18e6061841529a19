"""Everything that a broker holds, as the operator's own tools and the clients list it, to compare before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import messaging
from messaging_contract.harness import Harness

Inside = Callable[[str, str], str]
"""Runs a command in the container of the broker at a URL."""


def objects_on(harness: Harness, inside: Inside) -> set[str]:
    """Names of all there is, each with its kind."""
    assert harness.url is not None
    if harness.broker.name == "rabbitmq":
        return _rabbitmq(harness.url, inside)
    return {"kafka": _kafka, "sqs": _sqs}[harness.broker.name](harness.url)


def _rabbitmq(url: str, inside: Inside) -> set[str]:
    found = set()
    for kind, columns in (("queues", "name"), ("exchanges", "name"), ("bindings", "source_name destination_name")):
        listed = inside(url, f"rabbitmqctl --quiet list_{kind} {columns} --no-table-headers")
        found |= {f"{kind} {line}" for line in listed.splitlines()}
    return found


def _kafka(url: str) -> set[str]:
    with messaging.connect(url) as broker:
        admin: Any = broker.native
        # The topics that the cluster keeps for itself come with the first group.
        topics = {name for name in admin.list_topics(timeout=15).topics if not name.startswith("__")}
        groups = {group.group_id for group in admin.list_consumer_groups().result(15).valid}
    return {f"topic {name}" for name in topics} | {f"group {name}" for name in groups}


def _sqs(url: str) -> set[str]:
    with messaging.connect(url) as broker:
        sqs: Any = broker.native
        found = {f"queue {name}" for page in _pages(sqs, "list_queues") for name in page.get("QueueUrls", ())}
        if broker.capabilities.topics:
            sns: Any = broker._driver.clients.sns  # type: ignore[attr-defined]
            found |= {f"topic {t['TopicArn']}" for page in _pages(sns, "list_topics") for t in page.get("Topics", ())}
            subscriptions = [s for page in _pages(sns, "list_subscriptions") for s in page.get("Subscriptions", ())]
            found |= {f"subscription {each['SubscriptionArn']}" for each in subscriptions}
    return found


def _pages(client: Any, call: str) -> Any:
    return client.get_paginator(call).paginate()
