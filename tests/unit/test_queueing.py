from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.queueing import MAX_RETRY_AFTER_S, WaitingLine, retry_after_s, smooth


def line(*, max_pending: int = 3, max_wait_ns: int = 100) -> WaitingLine[str]:
    return WaitingLine(max_pending=max_pending, max_wait_ns=max_wait_ns)


def test_first_come_is_first_served() -> None:
    queue = line()
    for name in "abc":
        queue.join(name, now_ns=0)
    assert [queue.next(), queue.next(), queue.next()] == [("a", 0), ("b", 0), ("c", 0)]
    assert queue.next() is None


def test_a_full_line_admits_nobody() -> None:
    queue = line(max_pending=1)
    assert queue.join("a", now_ns=5) == 105
    assert queue.join("b", now_ns=5) is None
    assert len(queue) == 1


def test_a_line_of_no_length_admits_nobody() -> None:
    assert line(max_pending=0).join("a", now_ns=0) is None


def test_whoever_left_is_neither_counted_nor_served() -> None:
    queue = line()
    queue.join("a", now_ns=0)
    queue.join("b", now_ns=1)
    assert queue.leave("a")
    assert not queue.leave("a")
    assert len(queue) == 1
    assert queue.next() == ("b", 1)


def test_the_oldest_wait_is_that_of_the_first_in_line() -> None:
    queue = line()
    assert queue.oldest_wait_ns(now_ns=50) == 0
    queue.join("a", now_ns=10)
    queue.join("b", now_ns=40)
    assert queue.oldest_wait_ns(now_ns=50) == 40


actions = st.lists(st.tuples(st.sampled_from(["join", "leave", "next"]), st.integers(0, 9)), max_size=60)


@given(actions, st.integers(0, 5))
def test_pending_is_the_number_of_live_waiters_after_any_order_of_events(
    steps: list[tuple[str, int]], max_pending: int
) -> None:
    queue: WaitingLine[int] = WaitingLine(max_pending=max_pending, max_wait_ns=10)
    model: list[int] = []
    for now_ns, (action, who) in enumerate(steps):
        if action == "join" and who not in model:
            admitted = queue.join(who, now_ns) is not None
            assert admitted == (len(model) < max_pending)
            if admitted:
                model.append(who)
        elif action == "leave":
            assert queue.leave(who) == (who in model)
            model = [other for other in model if other != who]
        elif action == "next":
            served = queue.next()
            assert (served[0] if served else None) == (model.pop(0) if model else None)
        assert len(queue) == len(model) <= max_pending


@pytest.mark.parametrize(
    ("pending", "connections", "mean_use_ns", "jitter", "expected"),
    [
        pytest.param(0, 15, 0.0, 0.0, 1, id="nobody waits"),
        pytest.param(0, 15, 0.0, 0.99, 1, id="jitter alone stays within a second"),
        pytest.param(300, 15, 500e6, 0.0, 10, id="300 waiters over 15 connections of half a second"),
        pytest.param(300, 15, 500e6, 0.5, 13, id="stretched by jitter"),
        pytest.param(100_000, 1, 1e9, 0.0, MAX_RETRY_AFTER_S, id="bounded"),
    ],
)
def test_retry_after_is_the_time_the_line_needs_to_drain(
    pending: int, connections: int, mean_use_ns: float, jitter: float, expected: int
) -> None:
    got = retry_after_s(pending=pending, connections=connections, mean_use_ns=mean_use_ns, jitter=jitter)
    assert got == expected


@given(st.integers(0, 10**6), st.integers(1, 1000), st.floats(0, 1e12), st.floats(0, 1, exclude_max=True))
def test_retry_after_is_always_a_sane_number_of_seconds(
    pending: int, connections: int, mean_use_ns: float, jitter: float
) -> None:
    got = retry_after_s(pending=pending, connections=connections, mean_use_ns=mean_use_ns, jitter=jitter)
    assert 1 <= got <= MAX_RETRY_AFTER_S


@given(st.lists(st.integers(1, 10**12), min_size=1))
def test_a_smoothed_mean_stays_within_its_samples(samples: list[int]) -> None:
    mean = 0.0
    for sample in samples:
        mean = smooth(mean, sample)
    assert min(samples) * (1 - 1e-9) <= mean <= max(samples) * (1 + 1e-9)
