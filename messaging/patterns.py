"""Routing patterns over a message's dot-separated `type`, with the words of AMQP topic exchanges.

`*` stands for exactly one word and `#` for zero or more (RabbitMQ, "Topic exchange"). `#` alone takes everything.
The empty type has no words, so `*` does not match it (as RabbitMQ 3.10 and 4.0 were seen to do).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from messaging.errors import TopologyError

MATCH_ALL = "#"


def check_pattern(pattern: str) -> str:
    """Returns `pattern`; raises TopologyError when it is not text, empty, too long, or has `*` or `#` inside a word."""
    try:
        size = len(pattern.encode())
    except (AttributeError, UnicodeEncodeError):
        raise TopologyError(f"{pattern!r} is not a routing pattern: it is not Unicode text") from None
    if not 1 <= size <= 255:
        raise TopologyError(f"{pattern!r} is not a routing pattern: use 1 to 255 bytes, for example 'order.*'")
    words = pattern.split(".")
    for word in words:
        if word not in ("*", "#") and ("*" in word or "#" in word):
            raise TopologyError(f"{pattern!r}: '*' and '#' stand for whole words, as in 'order.*' or 'order.#'")
    return pattern


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Returns a function that tells whether a type matches `pattern`. Thread-safe."""
    if pattern == MATCH_ALL:
        return lambda _type: True
    if "*" not in pattern and "#" not in pattern:
        return pattern.__eq__
    expression = _expression(pattern.split("."))
    return lambda type_: expression.fullmatch("." + type_ if type_ else "") is not None


def _expression(words: list[str]) -> re.Pattern[str]:
    """Each word carries its leading dot, so that `#` can stand for no word at all.

    Between two `#` the first place that fits is as good as any later one, so it is held on to (an atomic group):
    a pattern with many `#` then takes quadratic time at worst, not exponential.
    """
    runs: list[str] = [""]
    for word in words:
        if word == "#":
            runs.append("")
        else:
            runs[-1] += r"\.[^.]*+" if word == "*" else re.escape("." + word) + r"(?![^.])"
    first, *rest = runs
    if not rest:
        return re.compile(first)
    *middle, last = rest
    anywhere = r"(?:\.[^.]*+)*?"
    held = "".join(f"(?>{anywhere}{run})" for run in middle if run)
    return re.compile(f"{first}{held}{anywhere}{last}")


def matches(pattern: str, type_: str) -> bool:
    """Whether a message of `type_` goes to a subscription with `pattern`. Thread-safe."""
    return matcher(pattern)(type_)
