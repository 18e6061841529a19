"""Runs the scenarios: contenders take turns within each round, so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from benchmarks.catalogue import Setup, label, load
from benchmarks.contender import Contender, Role, Settings
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.stats import paired_ratios, spread, target_for

Progress = Callable[[str], None]


@dataclass
class Series:
    """One contender's rounds in one scenario."""

    contender: Contender
    count: int
    rounds: dict[str, list[float]] = field(default_factory=dict)
    error: str | None = None


def run(setup: Setup, settings: Settings, messages: int, rounds: int, only: str | None, progress: Progress) -> dict:
    """The results of one setup, ready for the report and for JSON."""
    contenders, missing = _load(setup, settings)
    opened: list[Contender] = []
    try:
        for contender in contenders:
            contender.open()
            opened.append(contender)
        wanted = [s for s in SCENARIOS if s.name in setup.scenarios and only in (None, s.name)]
        results = [_scenario(setup, s, contenders, messages, rounds, progress) for s in wanted]
    finally:
        for contender in opened:
            with suppress(Exception):
                contender.close()
    return {
        "setup": setup.name,
        "title": setup.title,
        "note": setup.note,
        "settings": {
            "payload": "256 bytes of text",
            "prefetch": settings.prefetch,
            "window": settings.window,
            **({"linger_ms": settings.linger} if setup.name.startswith("kafka") else {}),
            **({"senders": settings.senders, "receivers": settings.receivers} if setup.name == "sqs" else {}),
        },
        "carries": {c.name: c.carries for c in contenders},
        "missing": missing,
        "scenarios": results,
    }


def _load(setup: Setup, settings: Settings) -> tuple[list[Contender], dict[str, str]]:
    contenders, missing = [], {}
    for path in setup.contenders:
        try:
            contenders.append(load(path, settings))
        except ImportError as error:
            missing[label(path)] = f"not installed ({error.name or error})"
    return contenders, missing


def _scenario(
    setup: Setup, scenario: Scenario, contenders: list[Contender], messages: int, rounds: int, progress: Progress
) -> dict:
    weighted = messages * scenario.weight
    entered = [
        Series(c, max(int(weighted * (c.share if scenario.weight == 1 else 1)), 20))
        for c in contenders
        if c.can(scenario.needs)
    ]
    for number in range(rounds):
        for series in entered:
            if series.error is None:
                progress(f"{scenario.title}: round {number + 1} of {rounds}, {series.contender.name}")
                _round(scenario, series)
    return _summary(setup, scenario, entered)


def _round(scenario: Scenario, series: Series) -> None:
    contender = series.contender
    name = contender.create()
    try:
        if scenario.filled:
            contender.publish_many(name, series.count)
        gc.collect()
        for metric, value in scenario.measure(contender, name, series.count).items():
            series.rounds.setdefault(metric, []).append(value)
    except Exception as error:
        if contender.role in (Role.OURS, Role.RAW):
            raise
        series.error = f"{type(error).__name__}: {error}"
    finally:
        with suppress(Exception):
            contender.delete(name)


def _summary(setup: Setup, scenario: Scenario, entered: list[Series]) -> dict:
    ours = next(s for s in entered if s.contender.role is Role.OURS)
    rows = []
    for series in entered:
        role, name = series.contender.role, series.contender.name
        row: dict = {
            "contender": name,
            "role": role.value,
            "messages": series.count,
            "error": series.error,
            "metrics": {},
        }
        for metric in scenario.metrics:
            values = series.rounds.get(metric.name)
            if not values:
                continue
            entry: dict = {"unit": metric.unit, "better": metric.better, "rounds": values, **spread(values)}
            if role is not Role.OURS:
                ratios = paired_ratios(ours.rounds[metric.name], values)
                entry["ours_to_this"] = {"rounds": ratios, **spread(ratios)}
                target = target_for(dict(scenario.targets.get(setup.name, {})), name, role)
                if target is not None and metric.better == "more":
                    entry["target"] = target
                    entry["met"] = entry["ours_to_this"]["median"] >= target
            row["metrics"][metric.name] = entry
        rows.append(row)
    return {"scenario": scenario.name, "title": scenario.title, "contenders": rows}
