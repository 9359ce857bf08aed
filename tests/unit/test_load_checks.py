"""Reasons not to believe a load."""

from __future__ import annotations

import pytest

from headgate.load.checks import check_cpu, check_lateness, check_load, check_lost, check_own_limits
from headgate.load.sample import Sample

MS = 1_000_000


def late(lateness_ms: float, intended_ms: float = 0.0, error: str = "") -> Sample:
    intended_ns, started_ns = round(intended_ms * MS), round((intended_ms + lateness_ms) * MS)
    return Sample("/a", intended_ns, started_ns, started_ns + MS, 0 if error else 200, error, 0)


def steady(lateness_ms: float, count: int = 100) -> list[Sample]:
    return [late(lateness_ms, i) for i in range(count)]


@pytest.mark.parametrize(
    ("samples", "ok"),
    [
        pytest.param(steady(5.0), True, id="at the limit"),
        pytest.param(steady(5.001), False, id="beyond the limit"),
        pytest.param([*steady(0.1, 99), late(400, 99)], True, id="one in a hundred may be late"),
        pytest.param([*steady(0.1, 98), late(400, 98), late(400, 99)], False, id="two in a hundred may not"),
        pytest.param([late(0.1 * i) for i in range(200)], True, id="a burst leaves one after the other"),
        pytest.param([late(0.2 * i) for i in range(200)], False, id="a slow burst"),
        pytest.param([late(20, 0)] * 200, False, id="a burst that starts late"),
        pytest.param([*[late(0)] * 200, *steady(10, 20)], False, id="a burst excuses nothing after it"),
        pytest.param([], False, id="nothing sent"),
    ],
)
def test_lateness(samples: list[Sample], ok: bool) -> None:
    assert check_lateness(samples).ok is ok


def test_lateness_states_the_raw_figure_of_a_burst() -> None:
    detail = check_lateness([late(0.1 * i) for i in range(200)]).detail
    assert "p99 19.7 ms of 200 requests" in detail
    assert "largest: 200" in detail


def test_cpu() -> None:
    assert check_cpu(0.8).ok
    assert not check_cpu(0.81).ok
    assert check_cpu(0.81).detail == "81% of one core; at most 80%"


@pytest.mark.parametrize(("planned", "issued", "ok"), [(3, 3, True), (4, 4, False), (4, 3, False), (3, 4, False)])
def test_lost(planned: int, issued: int, ok: bool) -> None:
    samples = [late(0), late(0), late(0, error="timeout")]
    check = check_lost(samples, planned=planned, issued=issued)
    assert check.ok is ok
    assert check.detail == f"{planned} planned, {issued} sent, 2 answered, 1 failed"


def test_own_limits_name_the_remedy() -> None:
    assert check_own_limits([late(0), late(0, error="refused")]).ok
    check = check_own_limits([late(0, error="descriptors"), late(0, error="ports")])
    assert not check.ok
    assert "1 requests lacked descriptors: raise" in check.detail


def test_every_check_is_made() -> None:
    checks = check_load(steady(0.1), planned=100, issued=100, generator_cpu=0.2)
    assert [(check.name, check.ok) for check in checks] == [
        ("lateness", True),
        ("cpu", True),
        ("lost", True),
        ("limits", True),
    ]
