"""The data of the charts, thinned and shaped for the page's script.

A distribution is drawn over *all* requests sent: at 99 %, 99 of 100 requests had a correct answer within that
time. A curve ends where correct answers end, so refusing quickly never looks like answering quickly.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headgate.lab.report.goodput import goodput_data, group_points
from headgate.lab.report.lines import line_style
from headgate.lab.report.reading import is_void
from headgate.lab.results import ArmResult, ConnectionStates, ExperimentResult, PathResult, Run

POINTS_PER_PAGE = 16_000
POINTS_PER_PATH = 600
FEWEST_POINTS = 60
CURVES_IN_ONE_CHART = 8
_GRID_PER_DECADE = 40
_LOWEST_LATENCY = 1e-5
"""Logarithmic axes need a floor; nothing that crosses a socket takes less than 10 µs."""

Point = tuple[float, float, bool]


@dataclass(frozen=True, slots=True)
class Curve:
    """One arm's path in a distribution chart, with the line style its legend shares.

    ``colour`` names a custom property of the style sheet; ``dash`` is on, off, on … in pixels, empty for a
    solid line. Stock is always dashed and Headgate's first line never is: no one needs colours to tell them.
    """

    label: str
    arm: ArmResult
    result: PathResult
    colour: str
    dash: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CurveGroup:
    """The curves that share a distribution chart; ``title`` names their path if there are several charts."""

    title: str
    curves: tuple[Curve, ...]


def group_curves(experiment: ExperimentResult) -> tuple[CurveGroup, ...]:
    """All curves in one chart while they are few, else one chart a path.

    Headgate's come first: solid lines lie below the dashed ones, so curves that coincide are both seen.
    """
    curves = sorted(_style_curves(experiment.arms), key=lambda curve: curve.arm.stack)
    if len(curves) <= CURVES_IN_ONE_CHART:
        return (CurveGroup("", tuple(curves)),) if curves else ()
    paths = dict.fromkeys(curve.result.path for curve in curves)
    return tuple(
        CurveGroup(
            path,
            tuple(replace(curve, label=curve.arm.title) for curve in curves if curve.result.path == path),
        )
        for path in paths
    )


def _style_curves(arms: Sequence[ArmResult]) -> Iterator[Curve]:
    used = {"stock": 0, "headgate": 0}
    for arm in arms:
        for result in arm.paths:
            if not result.requests:
                continue
            label = f"{arm.title} · {result.path}" if len(arm.paths) > 1 else arm.title
            yield Curve(label, arm, result, *line_style(arm, used[arm.stack]))
            used[arm.stack] += 1


def chart_data(run: Run) -> list[dict[str, Any]]:
    """One entry per experiment: ``goodputs``, ``distributions``, ``panels`` (by arm and path), ``scales`` of time."""
    limit = thinning_limit(run)
    return [_experiment_data(experiment, limit) for experiment in run.experiments]


def thinning_limit(run: Run) -> int:
    """How many points of one path are drawn, so that the page stays small however many arms there are."""
    paths = sum(len(arm.paths) for experiment in run.experiments for arm in experiment.arms)
    return max(FEWEST_POINTS, min(POINTS_PER_PATH, POINTS_PER_PAGE // max(paths, 1)))


def encode_json(value: object) -> str:
    """JSON that may stand inside a ``<script>`` element: no character in it can end or open markup."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _experiment_data(experiment: ExperimentResult, limit: int) -> dict[str, Any]:
    return {
        "goodputs": [goodput_data(group) for group in group_points(experiment)],
        "distributions": [_distribution_data(group) for group in group_curves(experiment)],
        "panels": [
            _panel_data(arm, path, limit, with_states=index == 0) | {"scales": _value_scales(experiment.arms, path)}
            for arm in experiment.arms
            for index, path in enumerate(arm.paths)
        ],
        "scales": _time_scales(experiment.arms),
    }


def _distribution_data(group: CurveGroup) -> dict[str, Any]:
    grid = nines_grid(max(_curve_reach(curve.result) for curve in group.curves))
    return {
        "x": [_short(x) for x in grid],
        "curves": [
            {
                "colour": curve.colour,
                "dash": curve.dash,
                "complete": curve.result.successes == curve.result.requests,
                "y": [_short(y) for y in quantile_curve(curve.result, grid)],
            }
            for curve in group.curves
        ],
    }


def _curve_reach(result: PathResult) -> float:
    """How far right a curve needs the axis: its slowest point, or beyond the share it never answered.

    At least up to 90 %, so that a curve that ends early is seen to end early.
    """
    count = float(len(result.points))
    failed = 1 - result.success_ratio
    return min(count, max(10.0, 1.5 / failed)) if failed > 0 else count


def nines_grid(reach: float) -> list[float]:
    """Values of ``1 / (1 - q)`` from 1, the fastest request, to ``reach``, the slowest of as many, log-evenly."""
    last = max(reach, 2.0)
    steps = max(8, round(_GRID_PER_DECADE * len(str(int(last)))))
    return [last ** (step / steps) for step in range(steps + 1)]


def quantile_curve(result: PathResult, grid: Sequence[float]) -> list[float | None]:
    """Latency within which the share ``1 - 1/x`` of all requests was answered correctly.

    None where that share never was, and beyond the number of points at hand, where the tail is unknown.
    """
    answered = sorted(latency for _, latency, success in result.points if success)
    share = result.success_ratio
    if not answered or share <= 0:
        return [None] * len(grid)
    known = len(result.points) * (1 + 1e-9)
    return [_quantile(answered, (1 - 1 / x) / share) if x <= known else None for x in grid]


def _quantile(ordered: Sequence[float], rank: float) -> float | None:
    if rank > 1:
        return None
    # The tolerance keeps 0.99 × 100 = 98.99999 from falling one sample short.
    return max(ordered[min(int(rank * len(ordered) + 1e-6), len(ordered) - 1)], _LOWEST_LATENCY)


def _panel_data(arm: ArmResult, result: PathResult, limit: int, *, with_states: bool) -> dict[str, Any]:
    points = thin_points(result.points, limit)
    rows = result.timeline
    return {
        "colour": "void" if is_void(arm) else f"{arm.stack}-0",
        "start": [_short(start) for start, _, _ in points],
        "latency": [_short(latency) for _, latency, _ in points],
        "success": "".join("1" if success else "0" for _, _, success in points),
        "rates": {
            "second": [second for second, _, _, _ in rows],
            "offered": [offered for _, offered, _, _ in rows],
            "good": [good for _, _, good, _ in rows],
            "failed": [failed for _, _, _, failed in rows],
        },
        "states": _states_data(arm.connections) if with_states else None,
    }


def _states_data(connections: ConnectionStates | None) -> dict[str, Any] | None:
    if connections is None or not connections.samples:
        return None
    return {
        "second": [_short(sample[0]) for sample in connections.samples],
        "active": [sample[1] for sample in connections.samples],
        "idle": [sample[2] for sample in connections.samples],
        "idle_in_transaction": [sample[3] for sample in connections.samples],
    }


def thin_points(points: Sequence[Point], limit: int) -> list[Point]:
    """At most ``limit`` points in order of start: evenly chosen, the slowest always among them."""
    ordered = sorted(points)
    if len(ordered) <= limit:
        return ordered
    chosen = {round(step * (len(ordered) - 1) / (limit - 2)) for step in range(limit - 1)}
    chosen.add(max(range(len(ordered)), key=lambda index: ordered[index][1]))
    return [ordered[index] for index in sorted(chosen)]


def _time_scales(arms: Sequence[ArmResult]) -> dict[str, float]:
    """Scales all panels of an experiment share."""
    paths = [path for arm in arms for path in arm.paths]
    samples = [sample for arm in arms if arm.connections for sample in arm.connections.samples]
    return {
        "start": _round_up(max((point[0] for path in paths for point in path.points), default=1.0)),
        "second": max((row[0] + 1 for path in paths for row in path.timeline), default=1),
        "sampled": _round_up(max((sample[0] for sample in samples), default=1.0)),
        "connections": _round_up(max((max(sample[1:]) for sample in samples), default=1)),
    }


def _value_scales(arms: Sequence[ArmResult], result: PathResult) -> dict[str, float]:
    """Scales a panel shares with those it is to be compared with: its path's, or all if an arm has one path."""
    paths = [path for arm in arms for path in arm.paths]
    if has_many_paths(arms):
        paths = [path for path in paths if path.path == result.path]
    return {
        "latency": _round_up(max((point[1] for path in paths for point in path.points), default=1.0)),
        "rate": _round_up(max((max(row[1:]) for path in paths for row in path.timeline), default=1)),
    }


def has_many_paths(arms: Sequence[ArmResult]) -> bool:
    """Whether arms load several paths at once, which do different work and are drawn apart."""
    return any(len(arm.paths) > 1 for arm in arms)


_ROUND_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def _round_up(value: float) -> float:
    """The next round number at or above ``value``; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 1.0
    while value > power * 10:
        power *= 10
    while value <= power:
        power /= 10
    step = _ROUND_STEPS[bisect_left(_ROUND_STEPS, value / power - 1e-9)]
    return float(f"{step * power:.3g}")


def _short(value: float | None) -> float | None:
    """Four significant digits: what a screen can show, at a third of the bytes."""
    return None if value is None else float(f"{value:.4g}")
