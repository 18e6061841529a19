"""Calls of the scripts, one or many at a time, with Redis's errors translated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    DestinationNotFound,
    MessagingError,
    PublishFailed,
    TopologyError,
    Unroutable,
)
from messaging_redis.options import RedisOptions
from messaging_redis.scripts import SHA, TEXT


class Call(NamedTuple):
    """One script on one queue, topic or subscription."""

    script: str
    name: str
    arguments: tuple[Any, ...] = ()


class Client:
    """A pool of connections. Thread-safe. Never tries again by itself: who calls knows until when that makes sense.

    timeout: seconds for a connection and for an answer.
    """

    def __init__(self, options: RedisOptions, timeout: float) -> None:
        self._prefix = options.prefix
        host, port = options.address
        self.redis = redis.Redis(
            host,
            port,
            int(options.path or 0),
            username=options.username,
            password=options.password,
            ssl=options.tls,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    def key(self, name: str) -> str:
        """The hash of what belongs to the queue or topic that `name` is part of. The braces are for the hash slot."""
        return f"{self._prefix}:{{{name.partition('--')[0]}}}"

    def call(self, script: str, name: str, *arguments: Any) -> Any:
        """Raises one of `messaging.errors`."""
        result = self.call_many([Call(script, name, arguments)])[0]
        if isinstance(result, MessagingError):
            raise result
        return result

    def call_many(self, calls: Sequence[Call]) -> list[Any]:
        """In one round trip; a result or an error for each. Raises BrokerUnavailable, AuthenticationFailed for all."""
        try:
            results = self._send(calls)
            # A server that was restarted has forgotten the scripts.
            unknown = [i for i, result in enumerate(results) if isinstance(result, NoScriptError)]
            if unknown:
                for script in {calls[i].script for i in unknown}:
                    self.redis.script_load(TEXT[script])
                for i, result in zip(unknown, self._send([calls[i] for i in unknown]), strict=True):
                    results[i] = result
        except RedisError as error:
            raise translate(error, f"{calls[0].script} {calls[0].name!r}") from error
        for i, result in enumerate(results):
            if isinstance(result, RedisError):
                results[i] = translate(result, f"{calls[i].script} {calls[i].name!r}")
                results[i].__cause__ = result
        return results

    def wait(self, name: str, after: bytes, milliseconds: int) -> None:
        """Returns once the stream of `name` has an entry after that id, or the time is over. Raises as `call`."""
        try:
            self.redis.execute_command(  # type: ignore[no-untyped-call]
                "XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", f"{self.key(name)}:{name}", after
            )
        except RedisError as error:
            raise translate(error, f"wait for {name!r}") from error

    def close(self) -> None:
        self.redis.close()

    def _send(self, calls: Sequence[Call]) -> list[Any]:
        with self.redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(  # type: ignore[no-untyped-call]
                    "EVALSHA", SHA[call.script], 1, self.key(call.name), call.name, *call.arguments
                )
            results: list[Any] = pipeline.execute(raise_on_error=False)
            return results


def translate(error: RedisError, doing: str) -> MessagingError:
    """The error of ours for one of redis-py's."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return AuthenticationFailed(f"{doing}: Redis refused: {error}; check the user, the password and its ACL")
    if isinstance(error, ConnectionLost | NoAnswer | ReadOnlyError):
        return BrokerUnavailable(f"{doing}: Redis cannot be reached: {error}")
    if isinstance(error, OutOfMemoryError):
        return PublishFailed(f"{doing}: Redis has no memory left (maxmemory), and stored nothing")
    word, _, rest = str(error).partition(" ")
    if word in ("NOTFOUND", "NOGROUP"):
        return DestinationNotFound(f"{doing}: it is not there ({rest}); declare it, or connect with create=True")
    if word == "CONFLICT":
        name, _, kind = rest.partition(" ")
        return TopologyError(f"{doing}: {name!r} exists and is a {kind}; choose another name, or delete it")
    if word == "UNROUTABLE":
        return Unroutable(f"{doing}: no subscription takes it; declare one, or leave out mandatory")
    return MessagingError(f"{doing}: {error}")
