"""`python -m messaging_contract soak`: producers and consumers under faults, and an account of every message."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from messaging.errors import ConfigurationError, MessagingError
from messaging_contract.brokers import Settings, Unavailable, candidates, check_target
from messaging_contract.harness import Harness
from messaging_contract.soak.chart import svg
from messaging_contract.soak.progress import Display, display
from messaging_contract.soak.report import as_json, lines
from messaging_contract.soak.run import Plan, soak
from messaging_contract.soak.schedule import CONTROLS, choose


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 when the guarantee was upheld, 1 when not, 2 for wrong arguments, 3 without broker."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.minutes is None) == (options.messages is None):
        parser.error("how long? Give one of --minutes N and --messages N")
    for name in ("minutes", "messages"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f"--{name} {value:g}: must be above 0")
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    try:
        if options.chart and not options.chart.endswith(".svg"):
            raise ConfigurationError(f"--chart {options.chart}: it is written as SVG, so name it .svg")
        for name in filter(None, (options.chart, options.json)):
            if not Path(name).absolute().parent.is_dir():
                raise ConfigurationError(f"{name}: there is no folder {Path(name).parent}")
        with _open(options.broker, options.containers) as harness, display() as show:
            kinds, cannot = choose(options.faults, harness)
            plan = Plan(seed, tuple(kinds), options.minutes and 60 * options.minutes, options.messages, options.drain)
            return _run(harness, plan, cannot, show, options.json, options.chart)
    except Unavailable as error:
        print(f"soak: {error}", file=sys.stderr)
        return 3
    except (ValueError, ConfigurationError) as error:
        parser.error(str(error))
    except MessagingError as error:
        print(f"soak: {type(error).__name__}: {error}", file=sys.stderr)
        return 3


def _run(
    harness: Harness, plan: Plan, cannot: Sequence[str], show: Display, json_file: str | None, chart: str | None
) -> int:
    show.line(f"{harness.name}, --seed {plan.seed} --faults {','.join(plan.kinds) or 'none'}")
    if cannot:
        show.line(f"not made here, for want of a control: {', '.join(cannot)}")
    if plan.seconds is not None:
        for fault in plan.schedule():
            show.line(f"  {fault.at:7.1f} s  {fault}")
    result = soak(harness, plan, show)
    show.stop()
    for line in lines(result):
        print(line)
    if json_file:
        Path(json_file).write_text(json.dumps(as_json(result), indent=1) + "\n", "utf-8")
    if chart:
        Path(chart).write_text(svg(result), "utf-8")
    return 0 if result.upheld else 1


@contextmanager
def _open(brokers: list[str], containers: str | None) -> Iterator[Harness]:
    for target in brokers:
        check_target(target)
    settings = Settings.of(brokers, containers, True, os.environ)
    if len(settings.brokers) + len(settings.containers) != 1 or not (brokers or containers):
        raise ConfigurationError("on which broker? Give one of --broker URL and --containers NAME")
    (candidate,) = candidates(settings)
    harness = candidate.open()
    harness.name = candidate.name
    try:
        yield harness
    finally:
        harness.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m messaging_contract soak", description=__doc__)
    parser.add_argument("--broker", action="append", default=[], metavar="URL", help="a running broker")
    parser.add_argument("--containers", metavar="NAME", help="a broker to start, such as rabbitmq:4")
    parser.add_argument("--minutes", type=float, metavar="N", help="how long to publish")
    parser.add_argument("--messages", type=int, metavar="N", help="how many to have confirmed, instead of --minutes")
    parser.add_argument(
        "--faults",
        default="all",
        metavar="KINDS",
        help=f"all that can be made (the default), none, or some of {', '.join(CONTROLS)}, separated by commas",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the schedule; one that is printed when left out")
    parser.add_argument(
        "--drain", type=float, default=90.0, metavar="SECONDS", help="without a delivery, until what is missing is lost"
    )
    parser.add_argument("--json", metavar="FILE", help="the account for machines")
    parser.add_argument("--chart", metavar="FILE.svg", help="throughput over time with the faults marked")
    return parser
