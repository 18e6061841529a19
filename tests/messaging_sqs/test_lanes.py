"""What may be sent next: everything when standard, one batch of a group at a time when ordered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from messaging_sqs.lanes import Lane, Pending, Report


def message(group: str | None, index: int, size: int = 10) -> Pending:
    return Pending({}, size, group, Report("q", lambda _index, _error: None), index)


def test_batches_are_ten_and_fit_the_limit() -> None:
    lane = Lane("q", "q", False, False, 100)
    lane.put([message(None, n, 30) for n in range(7)])
    assert [len(lane.take()) for _ in range(3)] == [3, 3, 1]
    lane.put([message(None, n, 1) for n in range(25)])
    assert [len(lane.take()) for _ in range(3)] == [10, 10, 5]
    assert not lane.ready


def test_a_group_waits_for_its_batch_and_others_do_not() -> None:
    lane = Lane("q", "q", False, True, 1000)
    lane.put([message("a", n) for n in range(12)])
    first = lane.take()
    assert [m.index for m in first] == list(range(10))
    assert not lane.ready
    lane.put([message("b", 100)])
    other = lane.take()
    assert [m.group for m in other] == ["b"]
    assert lane.take() == []
    lane.give_back(first, first[3:])
    assert [m.index for m in lane.take()] == [*range(3, 12)]


def test_finished_messages_are_passed_over() -> None:
    for ordered in (False, True):
        lane = Lane("q", "q", False, ordered, 1000)
        pending = [message("a" if ordered else None, n) for n in range(3)]
        lane.put(pending)
        for each in pending:
            each.finished = True
        assert lane.take() == []
        assert not lane.ready


@given(
    st.booleans(),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60)), max_size=60),
    st.lists(st.integers(0, 10), max_size=30),
)
def test_everything_is_sent_once_and_in_order_for_a_group(
    ordered: bool, messages: list[tuple[str, int]], failing: list[int]
) -> None:
    lane = Lane("q", "q", False, ordered, 100)
    lane.put([message(group if ordered else None, n, size) for n, (group, size) in enumerate(messages)])
    stored: list[Pending] = []
    under_way: list[list[Pending]] = []
    while lane.ready or under_way:
        batch = lane.take()
        if batch:
            assert sum(m.size for m in batch) <= 100
            assert len(batch) <= 10
            under_way.append(batch)
        if not batch or len(under_way) > 1:
            over = under_way.pop()
            good = len(over) - (failing.pop() if failing else 0)
            good = max(good, 0)
            stored += over[:good]
            lane.give_back(over, over[good:])
    assert sorted(m.index for m in stored) == list(range(len(messages)))
    if ordered:
        for group in "abc":
            mine = [m.index for m in stored if m.group == group]
            assert mine == sorted(mine)
