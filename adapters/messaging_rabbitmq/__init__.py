"""RabbitMQ adapter of `messaging`, on pika. RabbitMQ 3.10 and later, and 4.x.

URLs: `rabbitmq://user:password@host:5672/vhost?tls=true&heartbeat=30`; several hosts are tried in turn.

Delivery semantics: queues and subscriptions are durable quorum queues; a publish returns once the broker confirmed
it; an unsettled message goes to another consumer when its connection ends. `native={"rabbitmq": {...}}` takes `type`
("quorum", "classic"), `max_length` (messages; a full queue refuses) and `consumer_timeout` (seconds, from 3.12) for
queues and subscriptions, and `exchange` ("topic", "direct", "fanout") for topics.
"""

from messaging_rabbitmq.driver import RabbitMQDriver, capabilities
from messaging_rabbitmq.options import RabbitMQOptions

__all__ = ["RabbitMQDriver", "RabbitMQOptions", "capabilities"]
