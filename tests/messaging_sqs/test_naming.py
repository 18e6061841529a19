from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from messaging_sqs.naming import group_id, queue_name

PORTABLE = st.from_regex(r"[A-Za-z0-9]{1,30}([._-][A-Za-z0-9]{1,30}){0,2}", fullmatch=True)


@given(st.lists(PORTABLE, min_size=2, max_size=6, unique=True), st.booleans())
def test_names_never_collide_and_fit(names: list[str], ordered: bool) -> None:
    made = [queue_name(name, ordered) for name in names]
    made += [queue_name(f"{name}--{name}--dlq", ordered) for name in names]
    assert len(set(made)) == len(made)
    for name in made:
        assert len(name) <= 80
        stem = name.removesuffix(".fifo")
        assert stem.replace("_", "").replace("-", "").isalnum()
        assert name.endswith(".fifo") == ordered


def test_names() -> None:
    assert queue_name("jobs.eu", False) == "jobs__eu"
    assert queue_name("jobs", True, "dev-") == "dev-jobs.fifo"


def test_groups_are_keys_where_aws_takes_them() -> None:
    assert group_id("customer-42") == "customer-42"
    assert len(group_id("a b")) == 64
    assert len(group_id("é" * 100)) == 64
    assert group_id("a b") != group_id("a  b")
