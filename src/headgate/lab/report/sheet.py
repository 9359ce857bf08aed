"""What the terminal's table of one experiment says, as text: headings, lines, caption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headgate.lab.report.goodput import PointGroup, point_headings, point_numbers
from headgate.lab.report.reading import compare_figures, is_void, pick_statistic
from headgate.lab.report.words import (
    UNKNOWN,
    format_deviation,
    format_number,
    format_published,
    format_seconds,
    format_share,
)
from headgate.lab.results import ArmResult, ExperimentResult, PathResult, Run


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table: a label, and numbers unless it is a title."""

    label: str
    numbers: tuple[str, ...]
    style: str


class Sheet:
    """What the table of one experiment has columns for."""

    def __init__(self, experiment: ExperimentResult, *, scaled: bool, narrow: bool) -> None:
        self.experiment = experiment
        self.scaled = scaled
        self.narrow = narrow
        self.published = _published_statistic(experiment)
        self.ceiling = not narrow and any(arm.prediction for arm in experiment.arms)
        self.connections = any(arm.connections for arm in experiment.arms)

    def headings(self) -> Iterator[str]:
        yield self._marked("success")
        yield self._marked("req/s")
        if self.published and self.published != "throughput":
            yield self._marked(self.published)
        if self.published:
            # What others published was never scaled, so it bears no mark.
            yield "published"
        if self.ceiling:
            yield self._marked("ceiling")
        yield from map(self._marked, ("p50", "p99", "n"))
        if self.connections:
            yield self._marked("idle tx")

    def point_headings(self, *, narrow: bool) -> Iterator[str]:
        """The headings of the tables of arms that were put under several loads."""
        return map(self._marked, point_headings(narrow=narrow))

    def _marked(self, heading: str) -> str:
        return f"{heading}≈" if self.scaled else heading

    def numbers(self, arm: ArmResult, result: PathResult, *, first: bool) -> Iterator[str]:
        yield format_share(result.success_ratio)
        yield format_number(result.throughput)
        if self.published and self.published != "throughput":
            yield _latency(result, self.published)
        if self.published:
            yield self._published_number(arm, result)
        if self.ceiling:
            yield format_number(arm.prediction.throughput) if arm.prediction and first else ""
        yield _latency(result, "p50")
        yield _latency(result, "p99")
        yield f"{result.latency.count:,}"
        if self.connections:
            yield str(arm.connections.max_idle_in_transaction) if arm.connections and first else ""

    def _published_number(self, arm: ArmResult, result: PathResult) -> str:
        for comparison in compare_figures(arm, scaled=self.scaled):
            if (comparison.path, comparison.statistic) == (result.path, self.published):
                text = format_published(comparison.figure).removesuffix("/s")
                far = comparison.deviation is not None and not self.narrow
                return f"{text} {format_deviation(comparison.deviation or 0.0)}" if far else text
        return ""


def _published_statistic(experiment: ExperimentResult) -> str | None:
    """Throughput if anybody published it, else a mean, else a median; one column is all there is room for."""
    published = {comparison.statistic for arm in experiment.arms for comparison in compare_figures(arm, scaled=True)}
    return next((name for name in ("throughput", "mean", "p90", "p95", "max") if name in published), None)


def _latency(result: PathResult, statistic: str) -> str:
    if not result.latency.count:
        return UNKNOWN
    return format_seconds(pick_statistic(result.latency, statistic))


def _row_style(arm: ArmResult) -> str:
    if is_void(arm):
        return "dim strike"
    return "bold" if arm.stack == "headgate" else ""


def sheet_lines(sheet: Sheet) -> Iterator[Line]:
    """One line for an arm with one path; else one for its title and one a path; void figures in brackets."""
    for arm in sheet.experiment.arms:
        if arm.points:
            continue  # they have a table of their own
        void, style = is_void(arm), _row_style(arm)
        title = _title(arm, void=void)
        if len(arm.paths) != 1:
            yield Line(title, (), style)
        for index, result in enumerate(arm.paths):
            label = title if len(arm.paths) == 1 else f"  {result.path}"
            numbers = sheet.numbers(arm, result, first=index == 0)
            yield Line(label, tuple(f"({text})" if text and void else text for text in numbers), style)


def _title(arm: ArmResult, *, void: bool) -> str:
    return ("Headgate: " if arm.stack == "headgate" else "") + arm.title + (" (void)" if void else "")


def point_lines(group: PointGroup, *, narrow: bool) -> Iterator[Line]:
    """One line for an arm's title and one for each of its loads; void figures in brackets."""
    for curve in group.curves:
        style = _row_style(curve.arm)
        yield Line(_title(curve.arm, void=curve.void), (), style)
        for row in curve.rows:
            numbers = point_numbers(row, narrow=narrow)
            void_style = "dim strike" if row.void else style
            yield Line(f"  {row.load}", tuple(f"({text})" if row.void else text for text in numbers), void_style)


def point_caption(run: Run, sheet: Sheet, *, narrow: bool, any_void: bool) -> str:
    """What the columns of the loads mean."""
    parts = ["requests a second: offered, really sent, good (correct and in time)", "C: capacity"]
    parts.append("p50 and p99 of n answers, late ones included")
    if not narrow:
        parts.append("refused: how many, and p99 of the time that took")
    parts.append("ping: share answered" + ("" if narrow else ", and p99"))
    return "; ".join([*parts, *_warnings(run, sheet, any_void=any_void)]) + "."


def sheet_caption(run: Run, sheet: Sheet) -> str:
    parts = ["p50 and p99 over n requests, failed ones included at the time they failed"]
    if sheet.ceiling:
        parts.append("ceiling by Little’s law")
    if sheet.connections:
        parts.append("idle tx: most connections idle in transaction")
    any_void = any(is_void(arm) and not arm.points for arm in sheet.experiment.arms)
    return "; ".join([*parts, *_warnings(run, sheet, any_void=any_void)]) + "."


def _warnings(run: Run, sheet: Sheet, *, any_void: bool) -> Iterator[str]:
    if any_void:
        yield "(…): void, not to be believed"
    if sheet.scaled:
        reason = "scaled down by --quick" if run.mode == "quick" else "scaled parameters"
        yield f"≈: {reason}, a direction and not a size, not comparable with published figures"
