"""Schedules: what is due when."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import LoadError
from headgate.load import pacer

RATES = st.fractions(min_value=Fraction(1, 10), max_value=5_000, max_denominator=1_000)
DURATIONS = st.fractions(min_value=Fraction(1, 100), max_value=Fraction(1, 2), max_denominator=1_000)


@pytest.mark.parametrize(
    ("rate", "duration_s", "expected"),
    [
        pytest.param(2, 2, [0, 500_000_000, 1_000_000_000, 1_500_000_000], id="the end is not included"),
        pytest.param(1, 1, [0], id="one request"),
        pytest.param(1, Fraction(1, 1000), [0], id="shorter than one gap"),
        pytest.param(3, 1, [0, 333_333_334, 666_666_667], id="rounded up, never early"),
        pytest.param(Fraction(1, 2), 3, [0, 2_000_000_000], id="less than one a second"),
        pytest.param(10, 0.1, [0], id="floats are taken as written"),
        pytest.param(0.1, 20.0, [0, 10_000_000_000], id="float rate"),
    ],
)
def test_constant(rate: float | Fraction, duration_s: float | Fraction, expected: list[int]) -> None:
    assert list(pacer.constant(rate, duration_s)) == expected


def test_constant_does_not_drift() -> None:
    offsets = pacer.constant(Fraction(3), 100_000)
    assert offsets[299_997] == 99_999 * pacer.NS_PER_S


@given(rate=RATES, duration_s=DURATIONS)
def test_constant_follows_the_integral_of_its_rate(rate: Fraction, duration_s: Fraction) -> None:
    offsets = pacer.constant(rate, duration_s)
    assert len(offsets) == math.ceil(rate * duration_s)
    for i, offset_ns in enumerate(offsets):
        exact_ns = Fraction(i) / rate * pacer.NS_PER_S
        assert exact_ns <= offset_ns < exact_ns + 1


@given(rate=RATES, duration_s=DURATIONS, seed=st.integers())
def test_poisson_is_ordered_bounded_and_the_same_for_a_seed(rate: Fraction, duration_s: Fraction, seed: int) -> None:
    offsets = list(pacer.poisson(rate, duration_s, seed))
    assert offsets == list(pacer.poisson(rate, duration_s, seed))
    assert all(0 <= offset_ns < duration_s * pacer.NS_PER_S for offset_ns in offsets)
    assert all(earlier <= later for earlier, later in pairwise(offsets))


def test_poisson_seeds_differ() -> None:
    assert list(pacer.poisson(100, 1, 1)) != list(pacer.poisson(100, 1, 2))


def test_poisson_counts_and_gaps_have_the_right_mean_and_spread() -> None:
    rate, duration_s = 1_000, 100
    offsets = pacer.poisson(rate, duration_s, seed=3)
    mean_count = rate * duration_s
    assert abs(len(offsets) - mean_count) < 5 * math.sqrt(mean_count)
    gaps_s = [(later - earlier) / pacer.NS_PER_S for earlier, later in pairwise(offsets)]
    mean = sum(gaps_s) / len(gaps_s)
    variance = sum((gap - mean) ** 2 for gap in gaps_s) / len(gaps_s)
    assert math.sqrt(variance) / mean == pytest.approx(1.0, abs=0.03)  # exponential: deviation equals mean


def test_poisson_arrivals_stay_what_they_were() -> None:
    assert list(pacer.poisson(10, Fraction(1, 2), seed=1))[:3] == POISSON_10_SEED_1


# Published results are compared across versions of Headgate and of Python: the arrivals must be too.
POISSON_10_SEED_1 = [14_429_106, 202_444_732, 346_741_625]


def test_burst_is_due_at_once() -> None:
    assert list(pacer.burst(3)) == [0, 0, 0]


@pytest.mark.parametrize(
    ("rate", "duration_s", "value"),
    [
        pytest.param(0, 1, "rate 0", id="no rate"),
        pytest.param(-1, 1, "rate -1", id="negative rate"),
        pytest.param(1, 0, "duration 0", id="no duration"),
        pytest.param(math.nan, 1, "rate nan", id="not a number"),
        pytest.param(1, math.inf, "duration inf", id="endless"),
        pytest.param(10**9, 10**9, "1,000,000,000,000,000,000 requests", id="more than memory holds"),
    ],
)
def test_impossible_rates_are_refused(rate: float, duration_s: float, value: str) -> None:
    with pytest.raises(LoadError, match=f"^{value}"):
        pacer.constant(rate, duration_s)
    with pytest.raises(LoadError, match=f"^{value}"):
        pacer.poisson(rate, duration_s, seed=1)


def test_empty_burst_is_refused() -> None:
    with pytest.raises(LoadError, match="requests 0"):
        pacer.burst(0)


def test_in_turn_deals_out_arrivals() -> None:
    schedule = pacer.in_turn([10, 20, 30], 2)
    assert list(schedule.offsets_ns) == [10, 20, 30]
    assert list(schedule.targets) == [0, 1, 0]


def test_together_keeps_the_given_order_at_one_instant() -> None:
    schedule = pacer.together([pacer.burst(3), pacer.burst(2)])
    assert list(schedule.targets) == [0, 0, 0, 1, 1]


@given(st.lists(st.lists(st.integers(0, 50)).map(sorted), max_size=4))
def test_together_merges_every_stream_in_order(streams: list[list[int]]) -> None:
    schedule = pacer.together(streams)
    rows = list(zip(schedule.offsets_ns, schedule.targets, strict=True))
    assert rows == sorted(rows)
    for target, stream in enumerate(streams):
        assert [offset_ns for offset_ns, to in rows if to == target] == stream
