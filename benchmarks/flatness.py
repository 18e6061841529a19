"""Memory: publishes and consumes many messages in a process of its own and samples how much of it is in RAM."""

from __future__ import annotations

import gc
from multiprocessing import get_context

from benchmarks.contender import Settings

_BLOCK = 1000
_SAMPLES = 20
GROWTH = 8.0
"""MiB that may be added between the end of the first fifth (allocators and caches are warm) and any later sample."""


def flatness(settings: Settings, messages: int) -> dict[str, object]:
    """`samples` are (messages, MiB); `growth` is the most added after the first fifth; `flat` says whether it is
    below GROWTH."""
    context = get_context("spawn")
    with context.Pool(1) as pool:
        samples = pool.apply(_run, (settings, messages))
    settled = [mib for done, mib in samples if done >= messages / 5]
    growth = max(settled) - settled[0]
    return {"messages": messages, "samples": samples, "growth": growth, "limit": GROWTH, "flat": growth <= GROWTH}


def _run(settings: Settings, messages: int) -> list[tuple[int, float]]:
    from benchmarks.machine import resident
    from benchmarks.ours import Ours

    ours = Ours(settings)
    ours.open()
    name = ours.create()
    samples = []
    done = 0
    blocks = max(messages // _BLOCK, 1)
    block = min(_BLOCK, messages)
    try:
        with ours.subscribe(name) as consumer:
            for number in range(1, blocks + 1):
                ours.publish_many(name, block)
                missing = block
                while missing:
                    deliveries = consumer.receive(min(500, missing), 10.0)
                    if not deliveries:
                        raise TimeoutError(f"{missing} messages did not arrive")
                    for delivery in deliveries:
                        len(delivery.message.id)
                    consumer.ack(deliveries)
                    missing -= len(deliveries)
                done += block
                if number % max(blocks // _SAMPLES, 1) == 0:
                    gc.collect()
                    samples.append((done, round(resident(), 1)))
            consumer.flush()
    finally:
        ours.delete(name)
        ours.close()
    return samples
