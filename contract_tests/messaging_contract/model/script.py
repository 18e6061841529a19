"""What an example did, as the calls of a program that does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Script:
    """Lines are added before their call is made, so the last one is the one that went wrong."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def note(self, text: str) -> None:
        """Says of the last call what came of it."""
        self.lines[-1] += f"  # {text}"

    def __str__(self) -> str:
        return "\n".join(self.lines)


def call(function: str, *arguments: Any, **options: Any) -> str:
    """`call("c.receive", 1, timeout=0)` is "c.receive(1, timeout=0)". What is empty or None is left out.

    A positional text is a name in the script, not a text.
    """
    given = [item if isinstance(item, str) else repr(item) for item in arguments]
    given += [f"{name}={value!r}" for name, value in options.items() if _told(value)]
    return f"{function}({', '.join(given)})"


def names(deliveries: Sequence[int]) -> str:
    return f"[{', '.join(f'd{n}' for n in deliveries)}]"


def _told(value: Any) -> bool:
    return value is not None and value is not False and (not isinstance(value, str | Mapping) or bool(value))
