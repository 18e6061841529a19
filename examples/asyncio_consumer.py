"""The same pipeline for asyncio: two groups consume at once, on one event loop, while orders are published."""

import asyncio
import os

from messaging import Topic, aio

ORDERS = Topic(os.environ.get("ORDERS_TOPIC", "orders"), "inventory", "payment")
COUNT = 20


async def consume(broker: aio.AsyncBroker, group: str) -> None:
    seen: set[int] = set()
    async with await broker.subscribe(ORDERS, group) as consumer:
        async for delivery in consumer:
            await asyncio.sleep(0.001)  # a call to a database or another service
            seen.add(delivery.value["order"])
            delivery.ack()  # plain, not awaited: it never blocks
            if len(seen) == COUNT:
                print(f"{group}: {len(seen)} orders handled")
                return


async def main() -> None:
    async with await aio.connect(topology=ORDERS) as broker, asyncio.TaskGroup() as tasks:
        tasks.create_task(consume(broker, "inventory"))
        tasks.create_task(consume(broker, "payment"))
        await asyncio.gather(*(broker.publish(ORDERS, {"order": n}, type="order.placed") for n in range(COUNT)))
        print(f"{COUNT} orders placed")


if __name__ == "__main__":
    asyncio.run(main())
