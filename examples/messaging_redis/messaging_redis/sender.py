"""Sending: one thread takes what is queued, a pipeline at a time, until each message is stored or out of time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from threading import Condition, Thread
from typing import NamedTuple

from messaging.driver import Done, Outgoing, Sender
from messaging.errors import BrokerUnavailable, Closed, MessagingError, PublishTimeout
from messaging.message import Message
from messaging.options import ProducerOptions
from messaging_redis.client import Call, Client
from messaging_redis.wire import encode

_BATCH = 200
_BATCH_BYTES = 4 * 1024 * 1024
_PAUSE = 0.1
"""Seconds between two attempts while Redis cannot be reached."""


class Job(NamedTuple):
    """One message on its way: the `number`-th of its `send`. deadline: on the monotonic clock."""

    call: Call
    deadline: float
    size: int
    number: int
    done: Done


class RedisSender(Sender):
    """`_changed` guards everything. A job is in `_jobs` until its `done` is called, by `_run` alone.

    client: its own, whose timeout is a part of `options.timeout`: jobs time out behind one that gets no answer.
    """

    def __init__(self, client: Client, options: ProducerOptions) -> None:
        self._client = client
        self._timeout = options.timeout
        self._changed = Condition()
        self._jobs: deque[Job] = deque()
        self._closed = False
        self._gives_up = False
        self._thread = Thread(target=self._run, name="messaging-redis-sender", daemon=True)
        self._thread.start()

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        name = outgoing.only.name if outgoing.only is not None else outgoing.destination.name
        how = (int(outgoing.mandatory), outgoing.delay)
        deadline = time.monotonic() + self._timeout
        jobs: list[Job] = []
        for number, message in enumerate(messages):
            body, meta = encode(message)
            call = Call("publish", name, (*how, body, meta))
            jobs.append(Job(call, deadline, len(body) + len(meta), number, done))
        with self._changed:
            if self._closed:
                raise Closed(f"publish to {name!r}: the producer is closed")
            self._jobs.extend(jobs)
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self, timeout: float) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._gives_up = True
            self._changed.notify_all()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                batch = self._next()
                now = float("inf") if self._gives_up else time.monotonic()
            if not batch:
                return
            if batch[0].deadline <= now:
                late = [job for job in batch if job.deadline <= now]
                text = f"publish to {late[0].call.name!r}: not confirmed in time; it may or may not be stored"
                self._finish(batch, {id(job): PublishTimeout(text) for job in late})
                continue
            try:
                results = self._client.call_many([job.call for job in batch])
            except MessagingError as error:
                results = [error] * len(batch)
            outcome: dict[int, MessagingError | None] = {}
            for job, result in zip(batch, results, strict=True):
                if not isinstance(result, BrokerUnavailable):
                    outcome[id(job)] = result if isinstance(result, MessagingError) else None
            self._finish(batch, outcome)
            if len(outcome) < len(batch):
                with self._changed:
                    self._changed.wait_for(lambda: self._gives_up, _PAUSE)

    def _next(self) -> list[Job]:
        """At least one, where there is any."""
        batch: list[Job] = []
        size = 0
        for job in islice(self._jobs, _BATCH):
            size += job.size
            if batch and size > _BATCH_BYTES:
                break
            batch.append(job)
        return batch

    def _finish(self, batch: list[Job], outcome: dict[int, MessagingError | None]) -> None:
        """Reports those of the batch that have an outcome; the others stay in front, in order."""
        with self._changed:
            for _ in batch:
                self._jobs.popleft()
            self._jobs.extendleft(job for job in reversed(batch) if id(job) not in outcome)
        for job in batch:
            if id(job) in outcome:
                job.done(job.number, outcome[id(job)])
