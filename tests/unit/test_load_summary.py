"""Figures from samples."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.load.sample import Sample
from headgate.load.summary import (
    MAX_POINTS,
    Distribution,
    distribution,
    goodput,
    lateness,
    percentile,
    summarize,
    summarize_paths,
)

S = 1_000_000_000


def sample(
    intended_s: float, latency_s: float, *, status: int = 200, error: str = "", late_s: float = 0.0, to: str = "/a"
) -> Sample:
    intended_ns = round(intended_s * S)
    started_ns, ended_ns = intended_ns + round(late_s * S), intended_ns + round(latency_s * S)
    return Sample(to, intended_ns, started_ns, ended_ns, status, error, 0)


def test_throughput_is_counted_as_published() -> None:
    """The published 238 of 500 answered, 100/s for 5 s, the last at the timeout of 30 s: 6.80/s."""
    samples = [sample(i / 100, 2.0 if i < 238 else 30.0, status=200 if i < 238 else 0) for i in range(500)]
    result = summarize("/inside", samples)
    assert (result.duration, result.wait) == (4.99, 30.0)
    assert result.throughput == pytest.approx(238 / 34.99)
    assert result.throughput == pytest.approx(6.80, abs=0.005)
    assert result.success_ratio == pytest.approx(0.476)
    assert result.offered_rate == pytest.approx(100.2, abs=0.001)
    assert result.latency.p50 == 30.0
    assert (result.latency_success.count, result.latency_success.max) == (238, 2.0)


def test_latency_counts_from_the_intended_start() -> None:
    result = summarize("/a", [sample(0, 0.5, late_s=0.4), sample(1, 0.1, late_s=0.0)])
    assert result.latency.max == 0.5
    assert result.achieved_rate == pytest.approx(2 / 0.6)
    assert lateness([sample(0, 0.5, late_s=0.4)]).max == 0.4


def test_a_burst_has_no_rate() -> None:
    result = summarize("/a", [sample(0, 0.5), sample(0, 2.0)])
    assert (result.offered_rate, result.achieved_rate, result.throughput) == (0.0, 0.0, 1.0)


def test_statuses_errors_and_timeline() -> None:
    samples = [sample(0, 0.1), sample(0.5, 1, status=503), sample(2.2, 30, status=0, error="timeout")]
    result = summarize("/a", samples)
    assert result.statuses == {"0": 1, "200": 1, "503": 1}
    assert result.errors == {"timeout": 1}
    assert result.timeline == ((0, 2, 1, 1), (1, 0, 0, 0), (2, 1, 0, 1))
    assert result.points == ((0.0, 0.1, True), (0.5, 1.0, False), (2.2, 30.0, False))


def test_no_samples_are_all_zero() -> None:
    result = summarize("/a", [])
    assert (result.requests, result.throughput, result.success_ratio, result.timeline) == (0, 0.0, 0.0, ())
    assert result.latency == Distribution(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("count", [1, MAX_POINTS, MAX_POINTS + 1, 5 * MAX_POINTS - 1])
def test_points_are_thinned_evenly(count: int) -> None:
    points = summarize("/a", [sample(i, 0.1) for i in range(count)]).points
    assert min(count, MAX_POINTS // 2) <= len(points) <= MAX_POINTS
    assert len({round(b[0] - a[0]) for a, b in pairwise(points)}) <= 1


def test_paths_keep_their_order_and_share_the_clock_of_the_run() -> None:
    one, other = summarize_paths([sample(0, 1, to="/b"), sample(3, 1, to="/a"), sample(1, 1, to="/b")])
    assert (one.path, one.requests, other.path, other.requests) == ("/b", 2, "/a", 1)
    assert other.timeline == ((3, 1, 1, 0),)


@given(st.lists(st.integers(0, 10**12), min_size=1), st.integers(1, 100))
def test_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int], percent: int) -> None:
    ordered = sorted(values)
    value = percentile(ordered, percent)
    needed = percent * len(ordered)
    assert 100 * sum(v <= value for v in ordered) >= needed
    assert 100 * sum(v < value for v in ordered) < needed


@given(st.lists(st.integers(0, 10**12), min_size=1))
def test_distribution_is_ordered(values: list[int]) -> None:
    d = distribution(values)
    assert d.min <= d.p50 <= d.p90 <= d.p95 <= d.p99 <= d.max
    assert d.count == len(values)
    assert d.mean == pytest.approx(sum(values) / len(values) / S)


def test_goodput_leaves_out_what_is_late_or_wrong() -> None:
    samples = [
        sample(0, 1.0),
        sample(1, 1.001),
        sample(2, 0.1, status=503),
        sample(3, 0.1, error="truncated"),
        sample(4, 0.2),
    ]
    assert goodput(samples, wanted_s=1.0) == 2 / 4
    assert goodput([], wanted_s=1.0) == 0.0
