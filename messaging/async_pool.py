"""Runs `async def` handlers as tasks of one event loop: keys in parallel, the messages of one key in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Condition, Event, Thread

from messaging.consumer import Consumer
from messaging.delivery import Delivery
from messaging.errors import Closed
from messaging.handling import Handling
from messaging.pool import begin, receive

_Lane = deque[Delivery]


class AsyncPool:
    """One thread runs the event loop with `concurrency` tasks, a second one receives for it.

    Lanes and tasks are touched on the loop only; `_changed` guards `_running`, the handlers being run. Both threads
    belong to this object.
    """

    def __init__(self, consumer: Consumer, handling: Handling, concurrency: int, name: str) -> None:
        self._consumer = consumer
        self._handling = handling
        self._concurrency = concurrency
        self._name = name
        self._stopping = Event()
        self._changed = Condition()
        self._running = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes: dict[str, _Lane] = {}
        self._cancelled = False
        self.error: BaseException | None = None
        self._thread = Thread(target=self._run, name=f"{name}-loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No further message is started; those being handled go on. Returns at once."""
        with self._changed:
            self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Waits for handlers being run. False when some still run after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0, timeout)

    def cancel(self) -> None:
        """Cancels what still runs; it settles nothing, so its messages are delivered again."""
        if not self.join(0) and self._loop is not None:
            self._cancelled = True
            with suppress(RuntimeError):  # the loop has ended meanwhile
                for task in self._tasks:
                    self._loop.call_soon_threadsafe(task.cancel)
            self.join(5.0)

    def finish(self, timeout: float) -> None:
        """Waits for the threads to end, after the consumer was closed; not for handlers that still run."""
        if self._thread.ident is not None and self.join(0):
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Closed:
            pass
        except asyncio.CancelledError:
            if not self._cancelled:
                self.error = self.error or RuntimeError(
                    "a handler cancelled the task it runs in, which is the worker's"
                )
        except BaseException as error:
            self.error = self.error or error
        finally:
            self._stopping.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        work: asyncio.Queue[_Lane | None] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._handle(work)) for _ in range(self._concurrency)]
        with ThreadPoolExecutor(1, f"{self._name}-receive") as executor:
            try:
                # A task ends early only by what a handler may not raise: SystemExit, or its own cancellation.
                while not self._stopping.is_set() and not any(task.done() for task in self._tasks):
                    batch = await self._loop.run_in_executor(executor, partial(receive, self._consumer, 100))
                    for delivery in batch:
                        self._enter(delivery, work)
            finally:
                self._stopping.set()
                for _ in self._tasks:
                    work.put_nowait(None)
                await asyncio.gather(*self._tasks)

    def _enter(self, delivery: Delivery, work: asyncio.Queue[_Lane | None]) -> None:
        key = delivery.key
        if key is not None and key in self._lanes:
            self._lanes[key].append(delivery)
            return
        lane = deque((delivery,))
        if key is not None:
            self._lanes[key] = lane
        work.put_nowait(lane)

    async def _handle(self, work: asyncio.Queue[_Lane | None]) -> None:
        while (lane := await work.get()) is not None:
            with self._changed:
                if self._stopping.is_set():
                    return
                self._running += 1
            delivery = lane[0]
            try:
                if await self._begin(delivery):
                    await self._handling.run_async(delivery)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # out of the task, SystemExit would tear the loop down under the others
                self.error = self.error or error
                self._stopping.set()
                return
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()
            lane.popleft()
            if lane:
                work.put_nowait(lane)
            elif delivery.key is not None:
                del self._lanes[delivery.key]

    async def _begin(self, delivery: Delivery) -> bool:
        if not self._consumer.options.at_most_once:
            return True
        return await asyncio.to_thread(begin, self._consumer, delivery)
