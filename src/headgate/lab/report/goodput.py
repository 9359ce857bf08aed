"""Goodput over offered load: the curves of arms that were put under several loads, and their points as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.lab.points import Middle, find_middles
from headgate.lab.report.lines import line_style
from headgate.lab.report.reading import is_void, is_void_point
from headgate.lab.report.words import UNKNOWN, format_bytes, format_rate, format_seconds, format_share
from headgate.lab.results import ArmResult, Distribution, ExperimentResult, PointResult


@dataclass(frozen=True, slots=True)
class PointRow:
    """One load of an arm, as text; ``spread`` is empty unless the point was run several times."""

    middle: Middle
    void: bool
    load: str
    offered: str
    achieved: str
    goodput: str
    share: str
    spread: str
    bar: str
    p50: str
    p99: str
    refusals_p50: str
    refusals_p99: str
    pings: str
    pings_p99: str
    memory: str

    @property
    def point(self) -> PointResult:
        """The run that the row shows."""
        return self.middle.point


@dataclass(frozen=True, slots=True)
class PointCurve:
    """An arm's points, and the line style its legend shares."""

    arm: ArmResult
    void: bool
    colour: str
    dash: tuple[int, ...]
    rows: tuple[PointRow, ...]


@dataclass(frozen=True, slots=True)
class PointGroup:
    """The arms that are compared at multiples of the same capacity."""

    title: str
    capacity: str
    curves: tuple[PointCurve, ...]


def group_points(experiment: ExperimentResult) -> tuple[PointGroup, ...]:
    """Return the groups in the order of their first arms; empty for an experiment without points."""
    arms = [arm for arm in experiment.arms if arm.points]
    titles = dict.fromkeys(arm.group for arm in arms)
    return tuple(_make_group(title, [arm for arm in arms if arm.group == title]) for title in titles)


def _make_group(title: str, arms: Sequence[ArmResult]) -> PointGroup:
    used = {"stock": 0, "headgate": 0}
    curves = []
    for arm in arms:
        curves.append(_make_curve(arm, used[arm.stack]))
        used[arm.stack] += 1
    return PointGroup(title, format_rate(arms[0].points[0].capacity), tuple(curves))


def _make_curve(arm: ArmResult, turn: int) -> PointCurve:
    void = is_void(arm)
    colour, dash = line_style(arm, turn)
    return PointCurve(arm, void, colour, dash, tuple(_make_row(middle, void) for middle in find_middles(arm.points)))


def _make_row(middle: Middle, void: bool) -> PointRow:
    point = middle.point
    spread = f"{format_rate(middle.lowest)} to {format_rate(middle.highest)}, {middle.runs} runs"
    return PointRow(
        middle=middle,
        void=void or is_void_point(point),
        load=f"{point.multiple:g}×",
        offered=format_rate(point.offered_rate),
        achieved=format_rate(point.achieved_rate),
        goodput=format_rate(point.goodput),
        share=format_share(middle.share),
        spread=spread if middle.runs > 1 else "",
        bar=f"{min(100.0, 100 * middle.share):.2f}%",
        p50=_percentile(point.answered, "p50"),
        p99=_percentile(point.answered, "p99"),
        refusals_p50=_percentile(point.refusals, "p50"),
        refusals_p99=_percentile(point.refusals, "p99"),
        pings=format_share(point.pings.count / point.ping_requests) if point.ping_requests else UNKNOWN,
        pings_p99=_percentile(point.pings, "p99"),
        memory=format_bytes(point.usage.memory_peak),
    )


def _percentile(latency: Distribution, name: str) -> str:
    return format_seconds(float(getattr(latency, name))) if latency.count else UNKNOWN


def goodput_data(group: PointGroup) -> dict[str, Any]:
    """Return what the page's script draws: loads as multiples of capacity, goodput as a share of it."""
    loads = sorted({row.point.multiple for curve in group.curves for row in curve.rows})
    return {
        "x": loads,
        "offered": [_offered_at(group, load) for load in loads],
        "curves": [{"colour": curve.colour, "dash": curve.dash, **_curve_data(curve, loads)} for curve in group.curves],
    }


def _offered_at(group: PointGroup, load: float) -> str:
    return next(row.offered for curve in group.curves for row in curve.rows if row.point.multiple == load)


def _curve_data(curve: PointCurve, loads: Sequence[float]) -> dict[str, Any]:
    rows = {row.point.multiple: row for row in curve.rows}
    found = [rows.get(load) for load in loads]
    return {
        "y": [_round(row.middle.share) if row else None for row in found],
        "low": [_round(row.middle.lowest / row.point.capacity) if row else None for row in found],
        "high": [_round(row.middle.highest / row.point.capacity) if row else None for row in found],
        "void": [row.void if row else False for row in found],
    }


def _round(share: float) -> float:
    return round(share, 4)


# For the terminal.


def point_headings(*, narrow: bool) -> tuple[str, ...]:
    """Return what stands above the numbers of ``point_numbers``."""
    head = ("offered", "sent", "good", "of C", "p50", "p99", "n")
    return (*head, "ping") if narrow else (*head, "refused", "in", "ping", "in")


def point_numbers(row: PointRow, *, narrow: bool) -> Iterator[str]:
    """Return the numbers of one load, in the order of the headings."""
    point = row.point
    yield _whole(point.offered_rate)
    yield _whole(point.achieved_rate)
    yield _whole(point.goodput)
    yield row.share
    yield from (row.p50, row.p99, f"{point.answered.count:,}")
    if not narrow:
        yield from (f"{point.refused:,}", row.refusals_p99)
    yield row.pings
    if not narrow:
        yield row.pings_p99


def _whole(rate: float) -> str:
    return f"{round(rate):,}"
