import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging import Broker, Queue, Topic, Worker
from messaging.errors import BrokerUnavailable, ConfigurationError, DecodeError
from messaging.retry import NO_RETRY, RetryPolicy

ERROR = ValueError("no")


@given(
    st.integers(1, 12),
    st.lists(st.floats(0, 1e5), min_size=1, max_size=4),
    st.floats(1, 1e3),
    st.floats(1e-3, 1e6),
    st.floats(0, 3),
)
def test_no_delay_is_longer_than_the_longest(
    attempts: int, delays: list[float], factor: float, cap: float, jitter: float
) -> None:
    policy = RetryPolicy(attempts, delays, factor, cap, jitter)
    found = [policy.delay_after(n, ERROR) for n in range(1, attempts)]
    assert all(delay is not None and delay <= policy.longest for delay in found)
    assert math.fsum(delay or 0.0 for delay in found) <= policy.total * (1 + 1e-9)
    still = RetryPolicy(attempts, delays, factor, cap)
    together = math.fsum(still.delay_after(n, ERROR) or 0.0 for n in range(1, attempts))
    assert still.total == pytest.approx(min(together, 1e9))
    assert still.longest == max((still.delay_after(n, ERROR) or 0.0 for n in range(1, attempts)), default=0.0)


@pytest.mark.parametrize(("delay", "together"), [(0.0, 0.0), (1.0, 999_999.0), (3600.0, 1e9)])
def test_many_attempts_are_counted_at_once(delay: float, together: float) -> None:
    assert RetryPolicy(attempts=10**6, delays=(delay,)).total == together
    assert RetryPolicy(attempts=1, delays=(delay,)).total == 0


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0, 10.0, 500.0, 1e3, 1e300])
def test_delays_grow_to_the_cap_and_stay(factor: float) -> None:
    policy = RetryPolicy(attempts=10**9, delays=(1.0,), factor=factor, cap=3600.0)
    delays = [policy.delay_after(n, ERROR) for n in (1, 2, 3, 50, 10_000, 10**8)]
    expected = [1.0, min(factor, 3600.0), min(factor * factor, 3600.0)] + [3600.0 if factor > 1 else 1.0] * 3
    assert delays == pytest.approx(expected)


@given(
    st.lists(st.floats(0, 1e5), min_size=1, max_size=4),
    st.floats(1, 1e308),
    st.floats(1e-3, math.inf),
    st.floats(0, 1e308),
    st.integers(1, 10**12),
)
def test_every_delay_is_a_usable_number(
    delays: list[float], factor: float, cap: float, jitter: float, attempt: int
) -> None:
    delay = RetryPolicy(10**13, delays, factor, cap, jitter).delay_after(attempt, ERROR)
    assert delay is not None
    assert 0 <= delay <= 1e9
    assert attempt > len(delays) or delay >= min(delays[attempt - 1], 1e9)


def test_given_delays_are_kept_above_the_cap() -> None:
    policy = RetryPolicy(attempts=9, delays=(7200.0, 5.0))
    assert [policy.delay_after(n, ERROR) for n in (1, 2, 3)] == [7200.0, 5.0, 5.0]


def test_zero_stays_zero() -> None:
    assert RetryPolicy(9, (0.0,), factor=2.0, jitter=1.0).delay_after(5, ERROR) == 0.0


def test_gives_up_after_the_last_attempt_and_on_permanent_errors() -> None:
    policy = RetryPolicy(attempts=3, delays=(1,), never=(KeyError, DecodeError))
    assert policy.delay_after(2, ERROR) == 1.0
    assert policy.delay_after(3, ERROR) is None
    assert policy.delay_after(4, ERROR) is None
    assert policy.delay_after(1, DecodeError("x")) is None
    assert policy.delay_after(1, KeyError("x")) is None
    assert NO_RETRY.delay_after(1, ERROR) is None


def test_an_outage_is_waited_for_however_long_it_lasts() -> None:
    policy, down = RetryPolicy(attempts=3, delays=(0.5,)), BrokerUnavailable("x")
    assert [policy.delay_after(n, down) for n in (1, 2, 3, 4, 5, 8, 10**6)] == [0.5, 0.5, 1.0, 2.0, 4.0, 30.0, 30.0]
    assert policy.delay_after(9, down, outage=5.0) == 5.0
    assert RetryPolicy(always=(OSError,)).delay_after(9, OSError()) == 16.0
    assert RetryPolicy(always=()).delay_after(9, down) is None
    assert RetryPolicy(never=(BrokerUnavailable,)).delay_after(1, down) is None
    assert NO_RETRY.delay_after(1, down) is None


def test_jitter_never_shortens() -> None:
    policy = RetryPolicy.exponential(attempts=5, first=10.0, jitter=0.1)
    assert all(10.0 <= (policy.delay_after(1, ERROR) or 0) <= 11.0 for _ in range(100))


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"delays": ()},
        {"delays": (-1,)},
        {"delays": (math.nan,)},
        {"delays": (math.inf,)},
        {"delays": 5.0},
        {"delays": "5"},
        {"factor": 0.5},
        {"factor": math.nan},
        {"factor": math.inf},
        {"jitter": -0.1},
        {"jitter": math.nan},
        {"cap": 0},
        {"cap": math.nan},
        {"keep_order": "yes"},
        {"keep_order": None},
        {"attempts": float("nan")},
        {"attempts": 1.5},
        {"attempts": True},
        {"attempts": "3"},
        {"delays": (True,)},
        {"never": [ValueError]},
        {"never": "ValueError"},
        {"never": ("ValueError",)},
        {"always": [ValueError]},
    ],
)
def test_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="RetryPolicy"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


IN_ORDER = RetryPolicy(keep_order=True)


@pytest.mark.parametrize("destination", ["plain", "lane", Queue("plain"), Queue("new")])
def test_keeping_the_order_is_refused_where_there_is_none(broker: Broker, destination: str | Queue) -> None:
    broker.declare(Queue("plain"))
    worker = Worker(broker)
    if destination == "lane":
        broker.delete(Queue("lane", ordered=True))
    with pytest.raises(ConfigurationError, match=r"keep_order needs .* ordered=True"):
        worker.on(destination, retry=IN_ORDER)(print)
    with pytest.raises(ConfigurationError, match="no handler"):
        worker.start()


def test_keeping_the_order_is_accepted_where_it_is(broker: Broker) -> None:
    worker = Worker(broker)
    worker.on("lane", retry=IN_ORDER)(print)
    worker.on(Queue("other", ordered=True), retry=RetryPolicy.exponential(keep_order=True))(print)
    worker.on(Topic("t", "g", ordered=True), "g", retry=IN_ORDER)(print)
    with worker:
        assert [r.handling.retry.keep_order for r in worker.registrations] == [True] * 3


def test_keeping_the_order_is_refused_with_at_most_once(broker: Broker) -> None:
    with pytest.raises(ConfigurationError, match="at-most-once"):
        Worker(broker).on("lane", retry=IN_ORDER, delivery="at-most-once")(print)


def test_what_was_ordered_at_registration_is_asked_again_at_the_start(broker: Broker) -> None:
    worker = Worker(broker)
    worker.on("lane", retry=IN_ORDER)(print)
    broker.delete(Queue("lane", ordered=True))
    broker.declare(Queue("lane"))
    with pytest.raises(ConfigurationError, match="declared unordered"):
        worker.start()
