from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from messaging_kafka.tracker import OffsetTracker

Offsets = st.lists(st.integers(0, 60), unique=True, min_size=1).map(sorted)


@given(Offsets, st.randoms(use_true_random=False))
def test_everything_below_the_watermark_is_settled_and_it_is_as_high_as_can_be(
    offsets: list[int], random: object
) -> None:
    tracker = OffsetTracker(0)
    for offset in offsets:
        tracker.add(offset)
    order = list(offsets)
    random.shuffle(order)  # type: ignore[attr-defined]
    left = set(offsets)
    for offset in order:
        assert tracker.done(offset)
        assert not tracker.done(offset), "settled twice"
        left.discard(offset)
        assert tracker.watermark == (min(left) if left else offsets[-1] + 1)
        assert tracker.unsettled == len(left)
        assert tracker.span == len([o for o in offsets if left and o >= min(left)])


def test_a_gap_holds_the_watermark() -> None:
    tracker = OffsetTracker(0)
    for offset in range(5, 10):
        tracker.add(offset)
    for offset in (6, 7, 9):
        tracker.done(offset)
    assert tracker.watermark == 5
    tracker.done(5)
    assert tracker.watermark == 8
    tracker.done(8)
    assert tracker.watermark == 10


def test_offsets_that_do_not_exist_are_no_gap() -> None:
    tracker = OffsetTracker(0)
    tracker.begin(3)
    for offset in (3, 7, 20):
        tracker.add(offset)
    tracker.done(3)
    assert tracker.watermark == 7
    tracker.done(7)
    tracker.done(20)
    assert tracker.watermark == 21


def test_skipped_messages_are_settled_and_wait_for_those_before() -> None:
    tracker = OffsetTracker(0)
    tracker.skip(0)
    assert tracker.watermark == 1
    tracker.add(1)
    tracker.skip(2)
    assert (tracker.watermark, tracker.unsettled) == (1, 1)
    tracker.done(1)
    assert tracker.watermark == 3


def test_nothing_seen_is_nothing_to_commit() -> None:
    tracker = OffsetTracker(2)
    assert (tracker.watermark, tracker.unsettled, tracker.last) == (-1, 0, -1)
    assert not tracker.done(0)
    tracker.begin(17)
    assert (tracker.committed, tracker.requested) == (17, 17)


def test_what_was_never_added_settles_nothing() -> None:
    tracker = OffsetTracker(0)
    tracker.add(5)
    assert not tracker.done(4)
    assert not tracker.done(6)
    assert tracker.watermark == 5


def test_after_a_revoke_nothing_counts() -> None:
    tracker = OffsetTracker(0)
    for offset in range(5):
        tracker.add(offset)
    tracker.done(2)
    assert tracker.drop() == 4
    assert not tracker.alive
    assert not any(tracker.done(offset) for offset in range(5))
    assert tracker.unsettled == 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_many_at_a_time_are_the_same_as_one_by_one(gaps: list[int], data: st.DataObject) -> None:
    offsets = [sum(gaps[: n + 1]) + n for n in range(len(gaps))]
    single, many = OffsetTracker(0), OffsetTracker(0)
    for tracker in (single, many):
        for offset in offsets:
            tracker.add(offset)
    for _ in range(4):
        settled = data.draw(st.lists(st.sampled_from([*offsets, offsets[-1] + 1]), max_size=12))
        if data.draw(st.booleans()):
            settled.sort()
        assert many.done_many(settled) == sum(map(single.done, settled))
        assert (many.watermark, many.unsettled, many.span) == (single.watermark, single.unsettled, single.span)
