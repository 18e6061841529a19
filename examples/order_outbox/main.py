"""An order service that loses no event, and a payment that charges once, however often a message comes.

python main.py                                                        # SQLite and the embedded broker
MESSAGING_PROFILE=kafka python main.py                                # another broker
python main.py --database postgresql+psycopg://user:password@host/db  # another database
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, Integer, MetaData, String, Table, create_engine, func, insert, select

import messaging
from messaging import Delivery, Message, RetryPolicy, Topic, Worker
from messaging_sql import Inbox, Outbox, Relay, create_tables

TOPIC = Topic(os.environ.get("ORDERS_TOPIC", "orders"), "payment", ordered=True)
ORDERS = 20

shop = MetaData()
orders = Table("shop_orders", shop, Column("id", Integer, primary_key=True), Column("customer", String(50)))
payments = Table("shop_payments", shop, Column("id", Integer, primary_key=True), Column("order_id", Integer))

outbox = Outbox()
inbox = Inbox("payment")


def place_order(engine: Engine, customer: str, *, fail: bool = False) -> str:
    """The order and its event are one transaction: both are there afterwards, or neither. Returns the event's id."""
    with engine.begin() as connection:
        number = connection.execute(insert(orders).values(customer=customer)).inserted_primary_key[0]
        event = outbox.add(connection, TOPIC, {"order": number}, key=customer, type="order.placed")
        if fail:
            raise ConnectionError("before the commit")
        return event


def payment(broker: messaging.Broker, engine: Engine) -> Worker:
    worker = Worker(broker)

    @worker.on(TOPIC, "payment", retry=RetryPolicy(attempts=5, delays=(0.1,)))
    @inbox.handler(engine)
    def pay(connection: Connection, delivery: Delivery) -> None:
        connection.execute(insert(payments).values(order_id=delivery.value["order"]))
        if delivery.value["order"] % 5 == 0 and delivery.attempt == 1:
            raise ConnectionError("after the payment, before the commit")  # undone, then tried again

    return worker


def run(engine: Engine) -> None:
    config = Path(__file__).with_name("messaging.toml")
    with messaging.connect(topology=TOPIC, config_file=config) as broker:
        events = [place_order(engine, f"customer-{number % 4}") for number in range(ORDERS)]
        try:
            place_order(engine, "customer-9", fail=True)
        except ConnectionError:
            print("one order failed: no row, and no event")
        worker = payment(broker, engine)
        handled = worker.registrations[0].stats
        with Relay(engine, broker), worker:
            wait_until(lambda: handled.handled == ORDERS)
            # What a relay that crashed at the wrong moment does: the same messages, with the same ids, again.
            broker.publish_many(TOPIC, [Message(b'{"order": 0}', key="customer-0", id=event) for event in events])
            wait_until(lambda: handled.handled == 2 * ORDERS)
    with engine.connect() as connection:
        placed = connection.scalar(select(func.count()).select_from(orders))
        paid = connection.scalar(select(func.count()).select_from(payments))
    print(f"{placed} orders placed, {paid} paid; {handled.handled - ORDERS} messages came again and paid nothing")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("not every message was handled within a minute")
        time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", help="its SQLAlchemy URL; without it a new SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(options.database or f"sqlite:///{folder}/shop.db")
        create_tables(engine)
        shop.drop_all(engine)
        shop.create_all(engine)
        run(engine)
        engine.dispose()


if __name__ == "__main__":
    main()
