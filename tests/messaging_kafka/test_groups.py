from __future__ import annotations

from messaging import Queue, Subscription, Topic
from messaging.topology import Source
from messaging_kafka.groups import group_of, order_mark, queue_group
from messaging_kafka.share_groups import retry_name, share_group

ORDERS = Topic("orders", Subscription("inventory"))


def test_names() -> None:
    assert group_of(Source(ORDERS, ORDERS.subscriptions[0])) == "orders--inventory"
    assert group_of(Source(Queue("jobs"))) == queue_group("jobs") == "jobs--queue"
    assert (share_group("jobs"), retry_name("jobs")) == ("jobs--share", "jobs--retry")


def test_the_mark_beside_an_offset_tells_the_order() -> None:
    assert order_mark(Source(Queue("q"))) == "unordered"
    assert order_mark(Source(Queue("q", ordered=True))) == "ordered"
