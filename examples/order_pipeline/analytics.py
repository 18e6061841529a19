"""A fourth group, by people who need not tell the order service: nothing in main.py knows of it.

python analytics.py        # until Ctrl-C
python analytics.py 100    # ends after 100 orders
"""

import os
import sys
from itertools import islice
from pathlib import Path

import messaging

ORDERS = os.environ.get("ORDERS_TOPIC", "orders")

with messaging.connect(config_file=Path(__file__).with_name("messaging.toml")) as broker:
    consumer = broker.subscribe(ORDERS, "analytics")  # from now on it gets its own copy of every order
    print("analytics: ready", flush=True)
    cents, orders = 0, set()
    for delivery in islice(consumer, int(sys.argv[1]) if sys.argv[1:] else None):
        if delivery.id not in orders:  # at least once: one may come again
            orders.add(delivery.id)
            cents += delivery.value["cents"]
        delivery.ack()
    print(f"analytics: {len(orders)} orders, {cents / 100:.2f} in all")
