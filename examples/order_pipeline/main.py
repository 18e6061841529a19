"""An order pipeline: one order service; inventory, payment and notification each handle every order.

python main.py                     # everything in one process, ends when every group has seen every order
python main.py payment             # one group, until Ctrl-C; start as many as you like, they share the work
python main.py payment 100         # one group, ends after 100 orders
python main.py order-service 100   # 100 orders
"""

import os
import sys
from pathlib import Path
from threading import Event

import messaging
from messaging import Broker, Delivery, RetryPolicy, Topic, Worker

ORDERS = os.environ.get("ORDERS_TOPIC", "orders")
GROUPS = ("inventory", "payment", "notification")
handled: dict[str, set[int]] = {group: set() for group in GROUPS}  # orders may come twice: a set does not mind
all_handled = Event()


def connect() -> Broker:
    topology = Topic(ORDERS, *GROUPS)  # each group gets its own copy of every order, from now on
    return messaging.connect(topology=topology, config_file=Path(__file__).with_name("messaging.toml"))


def order_service(broker: Broker, count: int) -> None:
    confirmations = []
    for number in range(1, count + 1):
        order = {"order": number, "customer": number % 10, "cents": 100 * number}
        confirmations.append(broker.publish_nowait(ORDERS, order, key=f"customer-{number % 10}", type="order.placed"))
    for confirmation in confirmations:
        confirmation.result()  # the broker has stored it, or this raises
    print(f"order-service: {count} orders placed")


def consumers(broker: Broker, groups: tuple[str, ...], expected: int | None = None) -> Worker:
    worker = Worker(broker)
    for group in groups:

        @worker.on(ORDERS, group, retry=RetryPolicy(attempts=3, delays=(0.2,)), concurrency=4)
        def handle(delivery: Delivery, group: str = group) -> None:
            if group == "payment" and delivery.attempt == 1 and delivery.value["order"] % 10 == 0:
                raise ConnectionError("the bank is busy")  # raising retries; returning acknowledges
            handled[group].add(delivery.value["order"])
            if expected is not None and all(len(handled[name]) >= expected for name in groups):
                all_handled.set()

    return worker


def main(role: str = "all", count: str | None = None) -> None:
    with connect() as broker:
        if role == "order-service":
            order_service(broker, int(count or 100))
        elif role in GROUPS and count is None:
            consumers(broker, (role,)).run()  # until SIGTERM or Ctrl-C, then drains
            print(f"{role}: {len(handled[role])} orders handled")
        elif role in (*GROUPS, "all"):
            groups, expected = GROUPS if role == "all" else (role,), int(count or 100)
            with consumers(broker, groups, expected):
                if role == "all":
                    order_service(broker, expected)
                finished = all_handled.wait(60)
            for group in groups:
                print(f"{group}: {len(handled[group])} orders handled")
            sys.exit(0 if finished else 1)
        else:
            sys.exit(f"unknown role {role!r}: order-service, {', '.join(GROUPS)}, or nothing for all of them")


if __name__ == "__main__":
    main(*sys.argv[1:])
