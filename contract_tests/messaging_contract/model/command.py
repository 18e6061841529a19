"""`python -m messaging_contract model`: drives a broker and the model side by side, and shows where they part."""

from __future__ import annotations

import argparse
import os
import random
from dataclasses import dataclass

from messaging.errors import ConfigurationError
from messaging_contract.brokers import Candidate, Settings, Unavailable, candidates, check_target
from messaging_contract.model.world import MemoryWorld, World


@dataclass(frozen=True)
class Difference:
    """Where broker and model parted: what is wrong, and the calls that lead there."""

    what: str
    script: str


def drive(
    world: World, *, examples: int, steps: int, seed: int | None = None, shrink: bool = True
) -> Difference | None:
    """Runs the machine; returns the first difference, made as small as can be, or None. seed None: always the same.

    shrink: look for the smallest example, which tries many more of them. Raises what is no difference: a broker that
    is gone before an example began.
    """
    import hypothesis
    from hypothesis import HealthCheck, Phase
    from hypothesis.stateful import run_state_machine_as_test

    from messaging_contract.model.machine import machine_of

    machine = machine_of(world)
    if seed is not None:
        hypothesis.seed(seed)(machine)
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=seed is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )
    try:
        run_state_machine_as_test(machine, settings=settings)
    except Exception as error:
        script = str(machine.last)
        if not script:
            raise
        # One that does not come again the same way, as on a real broker it may, is reported by its script all the same.
        return Difference(machine.what or f"{type(error).__name__}: {error}", script)
    return None


def main(arguments: list[str]) -> int:
    """Returns the exit status: 0 when no broker differed from the model."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        parser.error('the model test needs hypothesis: python -m pip install "anybroker[contract]"')
    try:
        for target in options.broker:
            check_target(target)
        if not options.broker and options.containers is None:
            options.broker = ["memory://"]
        chosen = candidates(Settings.of(options.broker, options.containers, options.require, os.environ))
    except (ValueError, ConfigurationError) as error:
        parser.error(str(error))
    seed = random.randrange(2**32) if options.seed is None else options.seed
    failed = [one.name for one in chosen if not _drive_one(one, options, seed)]
    return 1 if failed else 0


def _drive_one(candidate: Candidate, options: argparse.Namespace, seed: int) -> bool:
    name = candidate.name
    memory = name == "memory"
    examples = options.examples or (500 if memory else 10)
    steps = options.steps or (50 if memory else 25)
    told = f"--examples {examples} --steps {steps} --seed {seed}"
    print(f"{name}: {told}", flush=True)
    harness = None
    if memory:
        world: World = MemoryWorld()
    else:
        try:
            harness = candidate.open()
        except Unavailable as error:
            print(f"{name}: not run: {error}", flush=True)
            return not options.require
        world = World(harness)
    try:
        difference = drive(world, examples=examples, steps=steps, seed=seed, shrink=not options.no_shrink)
    finally:
        if harness is not None:
            harness.close()
    if difference is None:
        print(f"{name}: as the model says", flush=True)
        return True
    print(f"{name}: {difference.what}\n\n{difference.script}\n", flush=True)
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m messaging_contract model", description=__doc__)
    parser.add_argument("--broker", action="append", default=[], metavar="URL", help="a running broker (repeatable)")
    parser.add_argument("--containers", metavar="NAMES", help="brokers to start, such as rabbitmq,kafka,sqs")
    parser.add_argument("--require", action="store_true", help="a broker that is not there is a failure")
    parser.add_argument("--examples", type=_positive, metavar="N", help="500 on memory, 10 on others")
    parser.add_argument(
        "--steps", type=_positive, metavar="N", help="of an example, at most; 50 on memory, 25 on others"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="the same examples again; one is chosen and printed")
    parser.add_argument("--no-shrink", action="store_true", help="show the first difference as it was found")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
