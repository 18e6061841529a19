"""Patterns against a matcher written straight from the definition."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.errors import TopologyError
from messaging.patterns import check_pattern, matches

WORDS = st.sampled_from(["a", "b", "ab", "", "a-b", "é", "a\nb", "+", "\\d", "["])
TYPES = st.lists(WORDS, max_size=6).map(".".join)
PATTERNS = st.lists(WORDS | st.sampled_from(["*", "#", "#"]), min_size=1, max_size=6).map(".".join).filter(bool)


def naive(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(naive(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and naive(pattern[1:], words[1:])


@given(PATTERNS, TYPES)
def test_matches_like_the_definition(pattern: str, type_: str) -> None:
    words = type_.split(".") if type_ else []  # RabbitMQ: the empty routing key has no words
    assert matches(check_pattern(pattern), type_) is naive(pattern.split("."), words)


@pytest.mark.parametrize(
    ("pattern", "type_", "expected"),
    [
        ("#", "", True),
        ("#.#", "", True),
        ("*", "", False),
        ("*", "order", True),
        ("*", "order.placed", False),
        ("order.*", "order", False),
        ("order.#", "order", True),
        ("order.#", "orders", False),
        ("#.placed", "order.replaced", False),
        ("a.*.c", "a..c", True),
        ("a.c", "a.c", True),
        ("a.c", "abc", False),
        ("order.*", "order.placed\n", True),
    ],
)
def test_examples(pattern: str, type_: str, expected: bool) -> None:
    assert matches(pattern, type_) is expected


@pytest.mark.parametrize("pattern", ["", "order.*x", "#x", "a" * 256, "é" * 128, "\ud800", "**", None, 5])
def test_refuses(pattern: object) -> None:
    with pytest.raises(TopologyError, match=r"routing pattern|whole words"):
        check_pattern(pattern)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pattern", [".".join(["#", "a"] * 60) + ".b", ".".join(["#", "*"] * 60) + ".b", "#." * 120 + "b"]
)
def test_many_hashes_do_not_explode(pattern: str) -> None:
    started = time.perf_counter()
    assert not matches(check_pattern(pattern), ".".join(["a"] * 127))
    assert time.perf_counter() - started < 2
