"""Numbers in words: three digits, no flattery by rounding."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.lab.report import words
from headgate.lab.results import Figure


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00034, "340 µs"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (2.011, "2.01 s"),
        (29.97, "30.0 s"),
        (413.0, "413 s"),
        (math.nan, "–"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert words.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.9999, "99.9 %"), (0.476, "47.6 %"), (0.0001, "0.1 %"), (0.0, "0 %"), (0.5, "50.0 %")],
)
def test_share(share: float, text: str) -> None:
    assert words.format_share(share) == text


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_only_all_is_a_hundred_per_cent_and_only_none_is_zero(share: float) -> None:
    assert words.format_share(share) not in {"100 %", "100.0 %", "0 %", "0.0 %"}


@pytest.mark.parametrize(
    ("deviation", "text"),
    [
        (0.004, "+0.4 %"),
        (-0.124, "−12 %"),
        (0.0, "±0.0 %"),
        (-0.0001, "±0.0 %"),
        (9.4, "×10.4"),
        (0.999, "+100 %"),
    ],
)
def test_deviation(deviation: float, text: str) -> None:
    assert words.format_deviation(deviation) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(6.863, "6.86"), (71.4, "71.40"), (300.12, "300.1"), (300.0, "300"), (1259.4, "1,259")],
)
def test_number(value: float, text: str) -> None:
    assert words.format_number(value) == text


def test_a_pace_of_zero_means_at_once() -> None:
    assert words.format_pace(0.0) == "at once"
    assert words.format_pace(100.0) == "100/s"


def test_published_figures_keep_their_digits() -> None:
    assert words.format_published(Figure("mean", 0.02, "s")) == "0.02 s"
    assert words.format_published(Figure("throughput", 71.49, "req/s")) == "71.49/s"


@pytest.mark.parametrize(("seconds", "text"), [(41.3, "41.3 s"), (412.6, "6 min 53 s")])
def test_span(seconds: float, text: str) -> None:
    assert words.format_span(seconds) == text
