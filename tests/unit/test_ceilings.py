from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.ceilings import Ceiling, binding_constraint, ceiling, offered, places
from headgate.errors import ConfigError


@pytest.mark.parametrize(
    ("limit", "hold_s", "expected"),
    [(15, 2.0, 7.5), (40, 2.0, 20.0), (15, 0.05, 300.0), (0, 1.0, 0.0), (3, 0.0, math.inf)],
)
def test_littles_law(limit: int, hold_s: float, expected: float) -> None:
    assert ceiling(limit, hold_s) == pytest.approx(expected)


@pytest.mark.parametrize(("limit", "hold_s"), [(-1, 1.0), (1, -0.1)])
def test_negative_arguments_are_refused(limit: int, hold_s: float) -> None:
    with pytest.raises(ConfigError, match="use 0 or more"):
        ceiling(limit, hold_s)


def test_the_smallest_binds_and_says_what_it_is() -> None:
    load = offered(500, 5.0, 2.0)
    assert load.throughput == pytest.approx(71.43, abs=0.01)
    threads, connections = places(40, "threads", 2.0), places(15, "connections", 2.0)
    assert binding_constraint([load, threads, connections]) == Ceiling("15 connections ÷ 2 s", 7.5)
    assert binding_constraint([load]).constraint == "offered: 500 requests ÷ (5 s + 2 s)"


def test_of_equal_ceilings_the_first_binds() -> None:
    assert binding_constraint([Ceiling("a", 2.0), Ceiling("b", 2.0)]).constraint == "a"


def test_without_ceilings_nothing_binds() -> None:
    with pytest.raises(ConfigError, match="name at least the offered rate"):
        binding_constraint([])


@given(st.lists(st.integers(1, 1000), min_size=1), st.floats(0.001, 100.0))
def test_no_ceiling_is_below_the_binding_one(limits: list[int], hold_s: float) -> None:
    ceilings = [places(limit, "connections", hold_s) for limit in limits]
    binding = binding_constraint(ceilings)
    assert binding.throughput == ceiling(min(limits), hold_s)
    assert all(binding.throughput <= other.throughput for other in ceilings)
