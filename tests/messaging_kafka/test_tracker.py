from __future__ import annotations

from random import Random

from confluent_kafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from messaging_kafka.settled_ahead import decode, encode, mark_of
from messaging_kafka.tracker import OffsetTracker

Offsets = st.lists(st.integers(0, 60), unique=True, min_size=1).map(sorted)


@given(Offsets, st.randoms(use_true_random=False))
def test_everything_below_the_watermark_is_settled_and_it_is_as_high_as_can_be(
    offsets: list[int], random: object
) -> None:
    tracker = OffsetTracker(0)
    tracker.add(offsets)
    order = list(offsets)
    random.shuffle(order)  # type: ignore[attr-defined]
    left = set(offsets)
    for offset in order:
        assert tracker.done([offset]) == 1
        assert tracker.done([offset]) == 0, "settled twice"
        left.discard(offset)
        assert tracker.watermark == (min(left) if left else offsets[-1] + 1)
        assert tracker.unsettled == len(left)
        assert tracker.span == len([o for o in offsets if left and o >= min(left)])


def test_a_gap_holds_the_watermark() -> None:
    tracker = OffsetTracker(0)
    tracker.add([5, 6, 7, 8, 9])
    tracker.done([6, 7, 9])
    assert tracker.watermark == 5
    tracker.done([5])
    assert tracker.watermark == 8
    tracker.done([8])
    assert tracker.watermark == 10


def test_offsets_that_do_not_exist_are_no_gap() -> None:
    tracker = OffsetTracker(0)
    tracker.begin(3)
    tracker.add([3, 7, 20])
    tracker.done([3])
    assert tracker.watermark == 7
    tracker.done([7])
    tracker.done([20])
    assert tracker.watermark == 21


def test_nothing_seen_is_nothing_to_commit() -> None:
    tracker = OffsetTracker(2)
    assert (tracker.watermark, tracker.unsettled, tracker.last) == (-1, 0, -1)
    assert not tracker.done([0])
    tracker.begin(17)
    assert (tracker.committed, tracker.requested, tracker.changes) == (17, 0, 0)


def test_what_was_never_added_settles_nothing() -> None:
    tracker = OffsetTracker(0)
    tracker.add([5])
    assert not tracker.done([4])
    assert not tracker.done([6])
    assert tracker.watermark == 5


def test_after_a_revoke_nothing_counts() -> None:
    tracker = OffsetTracker(0)
    tracker.add([0, 1, 2, 3, 4])
    tracker.done([2])
    assert tracker.drop() == 4
    assert not tracker.alive
    assert not tracker.done([0, 1, 2, 3, 4])
    assert tracker.unsettled == 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_many_at_a_time_are_the_same_as_one_by_one(gaps: list[int], data: st.DataObject) -> None:
    offsets = [sum(gaps[: n + 1]) + n for n in range(len(gaps))]
    single, many = OffsetTracker(0), OffsetTracker(0)
    many.add(offsets)
    for offset in offsets:
        single.add([offset])
    for _ in range(4):
        settled = data.draw(st.lists(st.sampled_from([*offsets, offsets[-1] + 1]), max_size=12))
        if data.draw(st.booleans()):
            settled.sort()
        assert many.done(settled) == sum(single.done([offset]) for offset in settled)
        assert (many.watermark, many.unsettled, many.span) == (single.watermark, single.unsettled, single.span)


@given(st.sets(st.integers(0, 5000), max_size=200), st.integers(0, 1 << 40))
def test_what_is_settled_ahead_is_read_back_by_whoever_begins_at_that_position(above: set[int], position: int) -> None:
    text = encode("unordered", position, {position + offset for offset in above})
    assert mark_of(text) == "unordered"
    assert decode(text, position) == {position + offset for offset in above}
    assert decode(text, position + 1) == set(), "a position that somebody else moved"


@given(st.integers())
def test_ten_thousand_settled_in_any_order_fit(seed: int) -> None:
    above = set(Random(seed).sample(range(1, 12_000), 6_000))
    assert decode(encode("unordered", 0, above), 0) == above


def test_of_what_does_not_fit_the_lowest_are_kept() -> None:
    above = [2**n for n in range(1, 23)]
    text = encode("ordered", 0, above, 60)
    assert len(text) <= 60
    kept = decode(text, 0)
    assert kept
    assert sorted(kept) == above[: len(kept)]
    assert encode("ordered", 0, above, 7) == "ordered"


def test_what_somebody_else_wrote_settles_nothing() -> None:
    for text in (
        None,
        "",
        "ordered",
        "ordered:",
        "ordered:5",
        "ordered:5:",
        "ordered:5:AAAA",
        "x:5:\u00e9",
        ":::",
        "a:5:b:c",
    ):
        assert decode(text, 5) == set()
        assert mark_of(text) in ("", "ordered", "x", "a")


def test_what_was_settled_before_is_told_once_and_stays_ahead_until_it_is_read() -> None:
    tracker = OffsetTracker.of(TopicPartition("t", 0, 3, encode("unordered", 3, [5, 9])))
    assert tracker.ahead == {5, 9}
    tracker.begin(3)
    tracker.add([3, 4, 5, 6])
    assert tracker.settled_before([3, 4, 5, 6]) == [5]
    assert tracker.done([5]) == 1
    assert tracker.ahead == {5, 9}
    tracker.done([3, 4])
    assert tracker.watermark == 6
    assert tracker.ahead == {9}


def test_in_a_log_that_was_cut_nothing_was_settled_before() -> None:
    tracker = OffsetTracker.of(TopicPartition("t", 0, 3, encode("unordered", 3, [5, 9])))
    tracker.begin(0)
    assert tracker.ahead == set()


def test_a_commit_that_was_refused_is_sent_again_and_an_old_answer_confirms_only_what_it_had() -> None:
    tracker = OffsetTracker(0)
    tracker.begin(0)
    tracker.add([0, 1, 2])
    tracker.done([1])
    first = TopicPartition("t", 0, 0, encode("unordered", 0, tracker.ahead))
    tracker.sent(first)
    tracker.done([0])
    second = TopicPartition("t", 0, 2, "unordered")
    tracker.sent(second)
    tracker.answered(first, True)
    assert (tracker.confirmed, tracker.requested, tracker.changes) == (1, 2, 2)
    tracker.answered(second, False)
    assert tracker.requested < tracker.changes
    tracker.sent(second)
    tracker.answered(second, True)
    assert (tracker.committed, tracker.confirmed) == (2, 2)


def test_a_log_that_ends_below_the_position_is_not_the_one_that_anything_was_settled_in() -> None:
    tracker = OffsetTracker.of(TopicPartition("t", 0, 100, encode("unordered", 100, [102, 103])))
    tracker.reach(90)
    assert (tracker.watermark, tracker.ahead) == (90, set())


def test_a_position_that_was_settled_before_and_is_not_read_yet_stays_settled() -> None:
    tracker = OffsetTracker.of(TopicPartition("t", 0, 100, encode("unordered", 100, range(101, 111))))
    tracker.begin(100)
    tracker.add([100])
    tracker.done([100])
    text = encode("unordered", tracker.watermark, tracker.ahead)
    assert decode(text, 101) == set(range(101, 111))


def test_a_message_behind_a_wide_gap_is_not_written() -> None:
    assert decode(encode("unordered", 0, [5, 10**12]), 0) == {5}
