import messaging
from messaging import Topic

orders = Topic("orders", "inventory", "payment")

with messaging.connect(topology=orders) as broker:  # MESSAGING_URL or a profile decides; memory:// without one
    broker.publish("orders", {"id": 7, "item": "tea"}, key="customer-42", type="order.placed")

    for group in ("inventory", "payment"):
        with broker.subscribe("orders", group) as consumer:
            for delivery in consumer.receive(timeout=10):
                print(group, delivery.value, delivery.type, "attempt", delivery.attempt)
                delivery.ack()
