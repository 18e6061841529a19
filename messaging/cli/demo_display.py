"""How a running demo looks: bars on a terminal, plain lines elsewhere, nothing for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from messaging.demo import GROUPS, Progress

Show = Callable[[Progress], None]
Style = Literal["bars", "lines", "none"]

_STEP = 25
"""Percent between two plain lines."""


@contextmanager
def display(style: Style, console: Console, orders: int) -> Iterator[Show]:
    """What a `Pipeline.run` shows its progress to. Used by one thread."""
    if style == "bars":
        with _bars(console) as bars:
            yield _on_bars(bars, orders)
    elif style == "lines":
        yield _on_lines(console)
    else:
        yield lambda _progress: None


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description:>13}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[about]}"),
        console=console,
    )


def _on_bars(bars: Bars, orders: int) -> Show:
    published = bars.add_task("order service", total=orders, about="published")
    tasks = [bars.add_task(group, total=orders, about="") for group in GROUPS]

    def show(progress: Progress) -> None:
        bars.update(published, completed=progress.published)
        for task, group in zip(tasks, progress.groups, strict=True):
            about = f"retried {group.retried}"
            if group.dead_lettered:
                about += f", [red]dead-lettered {group.dead_lettered}[/]"
            bars.update(task, completed=group.done, about=about)

    return show


def _on_lines(console: Console) -> Show:
    reached = 0

    def show(progress: Progress) -> None:
        nonlocal reached
        total = progress.orders * len(progress.groups)
        done = sum(group.done for group in progress.groups)
        # The same lines in every run: how fast they come is the broker's, what they say is not.
        while reached < 100 and done * 100 >= (reached + _STEP) * total:
            reached += _STEP
            console.print(f"{reached:3d} % of {total} done")

    return show
