"""What a Worker adds to a message, beyond receiving and acking it in a loop: in memory, the handler does nothing."""

from __future__ import annotations

import time
from threading import Event

import messaging
from benchmarks.contender import PAYLOAD, Settings
from benchmarks.ours import Ours
from benchmarks.stats import paired_ratios, spread

TARGET = 15.0
"""Microseconds a message."""

CASES = (("1 thread", 1, 0), ("8 threads", 8, 0), ("8 threads, 100 keys", 8, 100))


def worker_overhead(settings: Settings, messages: int, rounds: int) -> list[dict[str, object]]:
    """For each case: microseconds a message of the loop and of the worker, and their difference, by round."""
    ours = Ours(settings)
    ours.open()
    results: list[dict[str, object]] = []
    try:
        measured: dict[str, list[tuple[float, float]]] = {title: [] for title, _, _ in CASES}
        for _ in range(rounds):
            for title, concurrency, keys in CASES:
                pair = _loop(ours, messages, keys), _worker(ours, messages, concurrency, keys)
                measured[title].append(pair)
        for title, pairs in measured.items():
            loop, worker = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            over = spread([two - one for one, two in pairs])
            results.append(
                {
                    "case": title,
                    "unit": "us/message",
                    "messages": messages,
                    "loop": spread(loop),
                    "worker": spread(worker),
                    "overhead": over,
                    "ratios": paired_ratios(worker, loop),
                    "target": TARGET,
                    "met": over["median"] <= TARGET,
                }
            )
    finally:
        ours.close()
    return results


def _filled(ours: Ours, messages: int, keys: int) -> str:
    name = ours.create()
    items = [messaging.Message(PAYLOAD, key=f"key-{n % keys}" if keys else None) for n in range(messages)]
    ours.producer.publish_many(name, items)
    return name


def _loop(ours: Ours, messages: int, keys: int) -> float:
    name = _filled(ours, messages, keys)
    with ours.subscribe(name) as consumer:
        start = time.perf_counter()
        for number, delivery in enumerate(consumer, 1):
            delivery.ack()
            if number == messages:
                break
        seconds = time.perf_counter() - start
    ours.delete(name)
    return seconds / messages * 1e6


def _worker(ours: Ours, messages: int, concurrency: int, keys: int) -> float:
    name = _filled(ours, messages, keys)
    worker, done = messaging.Worker(ours.broker), Event()
    last = iter(range(messages - 1))  # next() of a range iterator is atomic: a count without a lock

    @worker.on(name, concurrency=concurrency, prefetch=ours.settings.prefetch)
    def handle(_delivery: messaging.Delivery) -> None:
        if next(last, None) is None:
            done.set()

    start = time.perf_counter()
    with worker:
        if not done.wait(120.0):
            raise TimeoutError("the worker did not handle every message within 120 seconds")
        seconds = time.perf_counter() - start
    ours.delete(name)
    return seconds / messages * 1e6
