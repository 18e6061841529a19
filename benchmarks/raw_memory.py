"""The floor for the memory broker: a SimpleQueue, which keeps nothing that a broker keeps."""

from __future__ import annotations

import time
from queue import SimpleQueue
from threading import Thread

from benchmarks.contender import PAYLOAD, Arrival, Contender, Meter, Run, payloads, unique_name


class RawMemory(Contender):
    name = "queue.SimpleQueue"
    carries = "nothing; no acknowledgement, no lease"

    def open(self) -> None:
        self._queues: dict[str, SimpleQueue[bytes | None]] = {}

    def create(self) -> str:
        name = unique_name("queue")
        self._queues[name] = SimpleQueue()
        return name

    def delete(self, name: str) -> None:
        del self._queues[name]

    def publish_many(self, name: str, count: int) -> Run:
        return self._put(name, count)

    def publish_each(self, name: str, count: int) -> Run:
        return self._put(name, count)

    def consume(self, name: str, count: int) -> Run:
        meter = Meter(count)
        get = self._queues[name].get
        while not meter.done:
            meter.add(1)
            len(get() or b"")
        return meter.run()

    def latencies(self, name: str, count: int) -> list[float]:
        queue, arrival = self._queues[name], Arrival()

        def read() -> None:
            while queue.get() is not None:
                arrival.mark()

        thread = Thread(target=read)
        thread.start()
        try:
            return arrival.ping(lambda: queue.put(PAYLOAD), count)
        finally:
            queue.put(None)
            thread.join()

    def _put(self, name: str, count: int) -> Run:
        bodies, put = payloads(count), self._queues[name].put
        start = time.perf_counter()
        for body in bodies:
            put(body)
        return Run(count, time.perf_counter() - start)
