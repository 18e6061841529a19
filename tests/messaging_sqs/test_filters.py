"""A filter policy lets through everything that its pattern matches."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from messaging.patterns import matches
from messaging_sqs.filters import filter_policy

WORD = st.sampled_from(["a", "b", "order", "", "x y"])
TYPES = st.lists(WORD, max_size=4).map(".".join)
PATTERNS = st.lists(st.sampled_from(["a", "b", "order", "*", "#"]), min_size=1, max_size=4).map(".".join)


def passes(policy: str | None, type_: str) -> bool:
    """As SNS decides; an empty type is no attribute at all."""
    if policy is None:
        return True
    for value in json.loads(policy)["type"]:
        if value == type_ and type_:
            return True
        if isinstance(value, dict):
            if "exists" in value and value["exists"] == bool(type_):
                return True
            if type_ and "prefix" in value and type_.startswith(value["prefix"]):
                return True
    return False


@given(PATTERNS, TYPES)
def test_nothing_wanted_is_filtered_out(pattern: str, type_: str) -> None:
    if matches(pattern, type_):
        assert passes(filter_policy(pattern), type_)


@given(st.lists(st.sampled_from(["a", "order"]), min_size=1, max_size=3), st.booleans(), TYPES)
def test_exact_and_trailing_hash_patterns_are_exact(words: list[str], hash_: bool, type_: str) -> None:
    pattern = ".".join([*words, "#"] if hash_ else words)
    if type_ != pattern:
        assert passes(filter_policy(pattern), type_) == matches(pattern, type_)


@given(PATTERNS, PATTERNS)
def test_a_pattern_can_be_told_from_another_by_its_policy(one: str, other: str) -> None:
    assert (filter_policy(one) == filter_policy(other)) == (one == other)
