"""What is measured, and what it has to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.contender import Contender, Role
from benchmarks.stats import quantile

Measured = Mapping[str, float]
"""One round's numbers, by metric."""


@dataclass(frozen=True)
class Metric:
    """One number of a scenario. `better`: "more" or "less"."""

    name: str
    unit: str
    better: str


RATE = Metric("rate", "msg/s", "more")
P50 = Metric("p50", "ms", "less")
P99 = Metric("p99", "ms", "less")


@dataclass(frozen=True)
class Scenario:
    """One piece of work. `needs`: the contender's method. `weight`: of `--messages`, how many it takes."""

    name: str
    title: str
    needs: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Contender, str, int], Measured]
    weight: float
    filled: bool = False
    targets: Mapping[str, Mapping[Role, float]] = field(default_factory=dict)


def _publish_many(contender: Contender, name: str, count: int) -> Measured:
    return {"rate": contender.publish_many(name, count).rate}


def _publish_each(contender: Contender, name: str, count: int) -> Measured:
    return {"rate": contender.publish_each(name, count).rate}


def _consume(contender: Contender, name: str, count: int) -> Measured:
    return {"rate": contender.consume(name, count).rate}


def _latency(contender: Contender, name: str, count: int) -> Measured:
    times = contender.latencies(name, count)
    return {"p50": quantile(times, 0.5) * 1000, "p99": quantile(times, 0.99) * 1000}


SCENARIOS = (
    Scenario(
        "publish",
        "Publish, confirmed, many in flight",
        "publish_many",
        (RATE,),
        _publish_many,
        1.0,
        targets={
            "rabbitmq": {Role.RAW: 0.9, Role.PEER: 5},
            "kafka": {Role.RAW: 0.5, Role.PEER: 15},
            "sqs": {Role.RAW: 0.8},
        },
    ),
    Scenario(
        "publish-each",
        "Publish, confirmed, one at a time",
        "publish_each",
        (RATE,),
        _publish_each,
        0.05,
    ),
    Scenario(
        "consume",
        "Consume and acknowledge",
        "consume",
        (RATE,),
        _consume,
        1.0,
        filled=True,
        targets={
            "rabbitmq": {Role.RAW: 0.7},
            "kafka": {Role.RAW: 0.4, Role.PEER: 15},
            "sqs": {Role.RAW: 0.8},
            "kafka-queue": {Role.RAW: 0.6},
        },
    ),
    Scenario(
        "latency",
        "End to end, one message at a time",
        "latencies",
        (P50, P99),
        _latency,
        0.02,
    ),
)
