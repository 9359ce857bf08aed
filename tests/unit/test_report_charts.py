"""The charts' data: thinning loses no extreme, a curve ends where answers end, scales are shared."""

from __future__ import annotations

import runpy
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.lab.report.charts import (
    chart_data,
    encode_json,
    group_curves,
    nines_grid,
    quantile_curve,
    thin_points,
    thinning_limit,
)
from headgate.lab.report.goodput import goodput_data, group_points
from headgate.lab.results import PathResult, Run

_GOLDEN = Path(__file__).parents[1] / "golden"

points = st.lists(
    st.tuples(st.floats(0, 1000, allow_nan=False), st.floats(0.00001, 60, allow_nan=False), st.booleans()),
    min_size=1,
    max_size=300,
)


@cache
def sample_run(mode: str = "full") -> Run:
    return runpy.run_path(str(_GOLDEN / "sample_run.py"))["sample_run"](mode)


def result_of(rows: list[tuple[float, float, bool]]) -> PathResult:
    successes = sum(success for _, _, success in rows)
    return replace(
        sample_run().experiments[1].arms[0].paths[0],
        points=tuple(rows),
        requests=len(rows),
        successes=successes,
        success_ratio=successes / len(rows),
    )


@given(points, st.integers(3, 100))
def test_thinning_keeps_within_the_limit_in_order_and_keeps_the_slowest(rows, limit) -> None:
    thinned = thin_points(rows, limit)
    assert len(thinned) <= limit
    assert thinned == sorted(thinned)
    assert set(thinned) <= set(rows)
    assert max(row[1] for row in thinned) == max(row[1] for row in rows)


@given(points)
def test_a_curve_rises_and_ends_at_the_share_answered(rows) -> None:
    result = result_of(rows)
    grid = nines_grid(len(rows))
    curve = quantile_curve(result, grid)
    known = [value for value in curve if value is not None]
    assert curve[: len(known)] == known, "no hole"
    assert all(low <= high for low, high in pairwise(known))
    for x, value in zip(grid, curve, strict=True):
        share = 1 - 1 / x
        if share < result.success_ratio - 1e-9 and x <= len(rows):
            assert value is not None
        if share > result.success_ratio + 1e-9:
            assert value is None


def test_a_curve_shows_the_fastest_the_99th_of_100_and_the_slowest() -> None:
    result = result_of([(0.0, float(latency), True) for latency in range(1, 101)])
    assert quantile_curve(result, [1.0, 2.0, 10.0, 100.0]) == [1.0, 51.0, 91.0, 100.0]


def test_the_tail_beyond_the_points_at_hand_is_left_empty() -> None:
    result = replace(result_of([(0.0, 1.0, True)] * 50), requests=5000, successes=5000)
    assert quantile_curve(result, [50.0, 51.0, 5000.0]) == [1.0, None, None]


def test_refusing_quickly_is_not_answering_quickly() -> None:
    result = result_of([(0.0, 0.001, False)] * 90 + [(0.0, 2.0, True)] * 10)
    assert quantile_curve(result, [1.0, 2.0, 10.0]) == [2.0, None, None]


def test_few_curves_share_a_chart_and_many_have_one_a_path() -> None:
    ping, sleep, _ = sample_run().experiments
    assert [group.title for group in group_curves(sleep)] == [""]
    paths = {path.path for arm in ping.arms for path in arm.paths}
    assert {group.title for group in group_curves(ping)} == paths


def test_no_two_curves_of_a_chart_look_alike() -> None:
    for experiment in sample_run().experiments:
        for group in group_curves(experiment):
            styles = [(curve.colour, curve.dash) for curve in group.curves if curve.colour != "void"]
            assert len(styles) == len(set(styles))


def test_stock_is_dashed_so_that_colours_are_not_needed() -> None:
    [group] = group_curves(sample_run().experiments[1])
    assert {curve.arm.stack for curve in group.curves if not curve.dash} == {"headgate"}


def test_scales_hold_every_point() -> None:
    for entry in chart_data(sample_run()):
        for panel in entry["panels"]:
            assert max(panel["latency"]) <= panel["scales"]["latency"]
            assert max(panel["rates"]["offered"]) <= panel["scales"]["rate"]
            assert max(panel["start"]) <= entry["scales"]["start"]


def test_panels_to_be_compared_share_their_scale() -> None:
    ping, sleep, _ = chart_data(sample_run())
    assert len({panel["scales"]["latency"] for panel in sleep["panels"]}) == 1
    results = [path for arm in sample_run().experiments[0].arms for path in arm.paths]
    of_pings = {
        panel["scales"]["latency"]
        for panel, result in zip(ping["panels"], results, strict=True)
        if result.path == "/ping"
    }
    [of_ping] = of_pings
    assert of_ping < max(panel["scales"]["latency"] for panel in ping["panels"]), "a count is not a ping"


def test_a_curve_that_ends_early_is_given_room_to_be_seen_ending() -> None:
    run = sample_run()
    [inside] = [arm for arm in run.experiments[1].arms if arm.name == "async-inside"]
    alone = replace(run, experiments=(replace(run.experiments[1], arms=(inside,)),))
    [[chart]] = [entry["distributions"] for entry in chart_data(alone)]
    assert chart["x"][-1] == 10.0
    assert chart["curves"][0]["y"][-1] is None
    assert not chart["curves"][0]["complete"]


def test_many_paths_are_drawn_with_fewer_points_each() -> None:
    run = sample_run()
    crowded = replace(run, experiments=run.experiments * 10)
    assert thinning_limit(crowded) < thinning_limit(run)


@pytest.mark.parametrize("hostile", ["</script>", "<!--", "a&b", "\u2028", "\u2029"])
def test_json_on_the_page_holds_no_markup(hostile: str) -> None:
    text = encode_json([hostile])
    assert not set(text) & set("<>&\u2028\u2029")


def test_json_refuses_what_browsers_cannot_read() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json([float("nan")])


def test_goodput_is_drawn_as_a_share_of_capacity_with_its_spread() -> None:
    *_, overload = chart_data(sample_run())
    work, reads = overload["goodputs"]
    assert work["x"] == reads["x"] == [1, 2, 5, 10]
    stock, _, ours = work["curves"]
    assert ours["y"][0] == pytest.approx(0.99, abs=0.01)
    assert all(low <= y <= high for low, y, high in zip(ours["low"], ours["y"], ours["high"], strict=True))
    assert ours["low"][3] < ours["high"][3], "three runs"
    assert reads["curves"][0]["low"] == reads["curves"][0]["high"], "one run"
    assert (stock["void"], ours["dash"], bool(stock["dash"])) == ([False] * 4, (), True)


def test_a_point_without_a_valid_run_is_marked() -> None:
    *_, overload = chart_data(sample_run("quick"))
    assert overload["goodputs"][0]["curves"][0]["void"] == [False, True]


def test_an_arm_that_missed_a_load_leaves_a_gap() -> None:
    experiment = sample_run().experiments[2]
    first, *rest = experiment.arms
    short = replace(first, points=tuple(point for point in first.points if point.multiple != 5))
    [group, _] = group_points(replace(experiment, arms=(short, *rest)))
    data = goodput_data(group)
    assert data["x"] == [1, 2, 5, 10]
    assert data["curves"][0]["y"][2] is None
