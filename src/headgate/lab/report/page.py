"""What the page shows, worked out before any markup: cells with their counts, comparisons, summaries.

The template decides where things stand; every number's wording and every refusal is decided here.
"""

from __future__ import annotations

import re

from headgate.lab.report.charts import group_curves, has_many_paths, thinning_limit
from headgate.lab.report.goodput import group_points
from headgate.lab.report.reading import (
    FEWEST_FOR_P99,
    LATENCY_STATISTICS,
    Comparison,
    collect_doubts,
    compare_figures,
    count_checks,
    count_unchecked,
    decisive_arms,
    has_void,
    is_scaled,
    is_void,
    pick_statistic,
    relative_deviation,
)
from headgate.lab.report.views import (
    ArmView,
    Bar,
    Cell,
    ExperimentView,
    OtherFigure,
    Page,
    PanelGroup,
    PanelRow,
    PublishedText,
    RowView,
)
from headgate.lab.report.words import (
    UNKNOWN,
    format_deviation,
    format_figure,
    format_published,
    format_rate,
    format_seconds,
    format_share,
)
from headgate.lab.results import ArmResult, ExperimentResult, PathResult, Run

ALWAYS_SHOWN = ("p50", "p99", "max")
_PERCENTILE = re.compile(r"\bp\d{2}", re.IGNORECASE)


def build_page(run: Run) -> Page:
    """The run as the page shows it."""
    limit = thinning_limit(run)
    return Page(
        run=run,
        scaled_badge="quick: scaled parameters" if run.mode == "quick" else "scaled parameters",
        doubts=collect_doubts(run),
        checks=count_checks(run),
        unchecked_arms=count_unchecked(run),
        experiments=tuple(
            _view_experiment(run, experiment, index, limit) for index, experiment in enumerate(run.experiments)
        ),
    )


def _view_experiment(run: Run, experiment: ExperimentResult, index: int, limit: int) -> ExperimentView:
    scaled = is_scaled(run, experiment)
    columns = _choose_columns(experiment)
    widest = _widest_throughputs(experiment, scaled=scaled)
    arms: list[ArmView] = []
    for arm in experiment.arms:
        first_panel = sum(len(view.rows) for view in arms)
        arms.append(_view_arm(arm, columns, first_panel, scaled=scaled, widest=widest, limit=limit))
    decisive = () if any(arm.points for arm in experiment.arms) else decisive_arms(experiment)
    return ExperimentView(
        result=experiment,
        index=index,
        scaled=scaled,
        columns=columns,
        arms=tuple(arms),
        single=tuple(view for view in arms if not view.arm.points),
        groups=group_points(experiment),
        decisive=tuple(view for chosen in decisive for view in arms if view.arm is chosen),
        curves=group_curves(experiment),
        has_connections=any(arm.connections for arm in experiment.arms),
        panels=_group_panels(arms),
        void_arms=sum(has_void(view.arm) for view in arms),
    )


def _group_panels(views: list[ArmView]) -> tuple[PanelGroup, ...]:
    """What has a course over time, one group a path where arms load several."""
    rows = [
        PanelRow(view, row, with_connections=index == 0 and _has_samples(view.arm))
        for view in views
        for index, row in enumerate(view.rows)
        if row.spread
    ]
    if not has_many_paths([view.arm for view in views]):
        return (PanelGroup("", tuple(rows)),) if rows else ()
    paths = dict.fromkeys(panel.row.result.path for panel in rows)
    return tuple(PanelGroup(path, tuple(panel for panel in rows if panel.row.result.path == path)) for path in paths)


def _has_samples(arm: ArmResult) -> bool:
    return arm.connections is not None and bool(arm.connections.samples)


def _choose_columns(experiment: ExperimentResult) -> tuple[str, ...]:
    """The usual three, and whatever else somebody published for one of the arms."""
    published = {comparison.statistic for arm in experiment.arms for comparison in compare_figures(arm, scaled=True)}
    return tuple(name for name in LATENCY_STATISTICS if name in ALWAYS_SHOWN or name in published)


def _widest_throughputs(experiment: ExperimentResult, *, scaled: bool) -> dict[str, float]:
    """The full width of a throughput bar, by path; the same for all paths if every arm has but one.

    Paths of one arm do different work: a ping beside a count would leave the count's bar invisible.
    """
    widest = dict.fromkeys((path.path for arm in experiment.arms for path in arm.paths), 0.0)
    for arm in experiment.arms:
        for path in arm.paths:
            widest[path.path] = max(widest[path.path], path.throughput)
        for comparison in compare_figures(arm, scaled=scaled):
            if comparison.statistic == "throughput" and comparison.path in widest and not scaled:
                widest[comparison.path] = max(widest[comparison.path], comparison.published)
    if has_many_paths(experiment.arms):
        return widest
    return dict.fromkeys(widest, max(widest.values(), default=0.0))


def _view_arm(
    arm: ArmResult,
    columns: tuple[str, ...],
    first_panel: int,
    *,
    scaled: bool,
    widest: dict[str, float],
    limit: int,
) -> ArmView:
    comparisons = compare_figures(arm, scaled=scaled)
    rows = tuple(
        _view_row(
            result,
            columns,
            first_panel + offset,
            _of_path(comparisons, result),
            widest[result.path],
            limit,
            arm,
        )
        for offset, result in enumerate(arm.paths)
    )
    return ArmView(
        arm=arm,
        void=is_void(arm),
        reasons=tuple(check for check in arm.checks if not check.ok),
        rows=rows,
        predicted=format_rate(arm.prediction.throughput) if arm.prediction else UNKNOWN,
        predicted_deviation=_deviation_from_prediction(arm),
        others=_other_figures(arm, columns, comparisons),
    )


def _of_path(comparisons: tuple[Comparison, ...], result: PathResult) -> dict[str, Comparison]:
    return {comparison.statistic: comparison for comparison in comparisons if comparison.path == result.path}


def _view_row(
    result: PathResult,
    columns: tuple[str, ...],
    panel: int,
    published: dict[str, Comparison],
    widest: float,
    limit: int,
    arm: ArmResult,
) -> RowView:
    return RowView(
        result=result,
        panel=panel,
        drawn=min(len(result.points), limit),
        spread=len({start for start, _, _ in result.points}) > 1,
        success=Cell(
            format_share(result.success_ratio),
            result.requests,
            _published_text(published.get("success ratio")),
        ),
        throughput=Cell(format_rate(result.throughput), result.requests, _published_text(published.get("throughput"))),
        bar=_throughput_bar(result, published.get("throughput"), arm, widest),
        latencies=tuple(_latency_cell(result, name, published.get(name)) for name in columns),
    )


def _latency_cell(result: PathResult, statistic: str, comparison: Comparison | None) -> Cell:
    every, answered = result.latency, result.latency_success
    some_failed = 0 < answered.count < every.count
    return Cell(
        text=format_seconds(pick_statistic(every, statistic)) if every.count else UNKNOWN,
        count=every.count,
        published=_published_text(comparison),
        answered=format_seconds(pick_statistic(answered, statistic)) if some_failed else "",
        answered_count=answered.count,
        too_few=statistic == "p99" and 0 < every.count < FEWEST_FOR_P99,
    )


def _published_text(comparison: Comparison | None) -> PublishedText | None:
    if comparison is None:
        return None
    deviation = "" if comparison.deviation is None else format_deviation(comparison.deviation)
    return PublishedText(format_published(comparison.figure), deviation)


def _throughput_bar(result: PathResult, comparison: Comparison | None, arm: ArmResult, widest: float) -> Bar:
    comparable = comparison is not None and comparison.deviation is not None
    predicted = arm.prediction.throughput if arm.prediction and len(arm.paths) == 1 else None
    return Bar(
        measured=_percentage(result.throughput, widest),
        published=_percentage(comparison.published, widest) if comparison and comparable else "",
        predicted=_percentage(predicted, widest) if predicted is not None and predicted <= widest else "",
    )


def _percentage(value: float, widest: float) -> str:
    return f"{100 * value / widest:.2f}%" if widest > 0 else "0%"


def _deviation_from_prediction(arm: ArmResult) -> str:
    """Only where arm and prediction speak of the same requests, and the arm is valid."""
    if arm.prediction is None or len(arm.paths) != 1 or is_void(arm):
        return ""
    deviation = relative_deviation(arm.paths[0].throughput, arm.prediction.throughput)
    return "" if deviation is None else format_deviation(deviation)


def _other_figures(
    arm: ArmResult, columns: tuple[str, ...], comparisons: tuple[Comparison, ...]
) -> tuple[OtherFigure, ...]:
    shown = {"throughput", "success ratio", *columns}
    paths = {result.path for result in arm.paths}
    published = {
        comparison.statistic: comparison
        for comparison in comparisons
        if comparison.statistic not in shown or comparison.path not in paths
    }
    measured = tuple(
        OtherFigure(
            _honest_name(figure.name),
            format_figure(figure.value, figure.unit),
            _published_text(published.pop(figure.name.lower(), None)),
        )
        for figure in arm.figures
    )
    return measured + tuple(
        OtherFigure(f"{left.path} {left.statistic}".strip(), UNKNOWN, _published_text(left))
        for left in published.values()
    )


def _honest_name(name: str) -> str:
    """A percentile given as a bare figure has lost its sample count, and says so."""
    return f"{name} (sample count not recorded)" if _PERCENTILE.search(name) else name
