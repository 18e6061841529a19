"""`messaging demo`: the order pipeline on any broker, with a ledger that must balance."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

import messaging.adapters
from messaging.broker import Broker
from messaging.cli.console import console
from messaging.cli.demo_display import Style, display
from messaging.cli.demo_report import print_report
from messaging.cli.errors import FAILED, INTERRUPTED, exit_status, say_error
from messaging.config import load, resolve
from messaging.demo import GROUPS, Order, Pipeline, Report, demo_topic, read_orders, sample_orders
from messaging.demo.plan import expected
from messaging.errors import ConfigurationError, MessagingError
from messaging.topology import Topic

_DEFAULT_ORDERS = 1000


def demo(
    broker: Annotated[
        str | None,
        typer.Option("--broker", help="A URL, or a profile of messaging.toml. Without it: as `connect`, so memory://."),
    ] = None,
    orders: Annotated[
        int | None, typer.Option("--orders", min=1, help=f"How many: {_DEFAULT_ORDERS}, or with --input all rows.")
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="Orders from a .csv (with a header) or .jsonl file, one a row."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="COLUMN", help="The column of --input that is the message key.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the run's topic, queues and dead letters on the broker.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Run the order pipeline: one producer, and three groups that each receive every order.

    Some orders fail as planned: they are retried, and a few are dead-lettered. The exit status is 0 only when
    published = handled + dead-lettered in each group, checked order by order.
    """
    try:
        rows = _orders(orders, input_file, key)
        report = _run(broker, rows, keep, as_json)
    except MessagingError as error:
        if as_json:
            typer.echo(json.dumps({"balanced": False, "error": str(error), "kind": type(error).__name__}))
        say_error(str(error))
        raise typer.Exit(exit_status(error)) from error
    if not report.balanced:
        raise typer.Exit(FAILED)


def _orders(count: int | None, path: Path | None, key: str | None) -> list[Order]:
    if path is not None:
        return read_orders(path, key, count)
    if key is not None:
        raise ConfigurationError("--key names a column of --input, which is missing")
    return sample_orders(count or _DEFAULT_ORDERS)


def _run(target: str | None, orders: list[Order], keep: bool, as_json: bool) -> Report:
    out = console()
    style: Style = "none" if as_json else "bars" if out.is_terminal else "lines"
    with _quiet_logs(), _terminated_as_exit(), _open(target) as broker:
        topic = demo_topic()
        if not as_json:
            _print_plan(out, broker.name, len(orders))
        # Outside of the clean-up: a broker that refuses topics has nothing to clean up.
        broker.capabilities.require("topics", broker.name)
        try:
            with display(style, out, len(orders)) as show:
                report = Pipeline(broker, topic, orders).run(show, keep_dead_letters=keep)
        except KeyboardInterrupt:
            say_error("interrupted" if keep else "interrupted: stopping, and deleting what this run made")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            if not keep:
                _delete(broker, topic)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        print_report(report, out)
        if keep:
            out.print(f"Kept on the broker: topic {topic.name}, groups {', '.join(GROUPS)}.")
    return report


def _open(target: str | None) -> Broker:
    """As `connect`, but without the topology of the user's configuration file: the demo declares only its own."""
    settings = {} if target and "://" in target else load()
    driver = messaging.adapters.create(resolve(target, settings, {}))
    try:
        driver.open()
    except BaseException:
        driver.close()
        raise
    return Broker(driver)


def _delete(broker: Broker, topic: Topic) -> None:
    try:
        broker.delete(topic)
    except MessagingError as error:
        say_error(f"topic {topic.name!r} of this run could not be deleted: {error}")


def _print_plan(out: Console, broker: str, count: int) -> None:
    plans = [expected(group, count) for group in GROUPS]
    retries = sum(plan.retries for plan in plans)
    dead = sum(len(plan.dead_letters) for plan in plans)
    out.print(f"Order pipeline on {broker}: {count} orders, each to {', '.join(GROUPS[:-1])} and {GROUPS[-1]}.")
    out.print(f"Planned failures, the same in every run: retries {retries}, dead letters {dead}.")


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Failures that are planned are no news; every other warning still shows."""
    log = logging.getLogger("messaging.worker")

    def unplanned(record: logging.LogRecord) -> bool:
        return "(planned)" not in record.getMessage()

    log.addFilter(unplanned)
    try:
        yield
    finally:
        log.removeFilter(unplanned)


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that the run cleans up after itself."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
