"""Redis Streams for `messaging`: `connect("redis://localhost")`."""

from messaging_redis.driver import RedisDriver
from messaging_redis.options import RedisOptions

__all__ = ["RedisDriver", "RedisOptions"]
