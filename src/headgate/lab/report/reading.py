"""How a run is read: what is void, what is scaled, what was published for what was measured.

A published figure is matched by its name: ``throughput``, ``success ratio`` (``success``), ``min``, ``mean``,
``p50`` … ``max``, or the name of one of the arm's own figures. It speaks of the arm's first path unless the
name begins with another: ``/ping mean``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from headgate.lab.report.words import UNIT_FACTORS
from headgate.lab.results import ArmResult, Check, Distribution, ExperimentResult, Figure, PathResult, PointResult, Run

LATENCY_STATISTICS = ("min", "mean", "p50", "p90", "p95", "p99", "max")
FEWEST_FOR_P99 = 100
"""Below this many samples the 99th percentile is the slowest sample, and the report says so."""

_ALIASES = {
    "success": "success ratio",
    "success rate": "success ratio",
    "median": "p50",
    "average": "mean",
    "minimum": "min",
    "maximum": "max",
}


@dataclass(frozen=True, slots=True)
class Doubt:
    """A failed check and where it failed; ``arm`` is empty when it concerns the whole run."""

    experiment: str
    arm: str
    check: Check


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure beside the measured one, both in seconds, as a ratio, or in the figure's own unit.

    ``figure`` is the published one, word for word; ``measured`` is None if nothing of that name was measured.
    ``deviation`` is relative to the published figure and None where the two must not be compared: scaled
    parameters, a void arm, a published zero.
    """

    path: str
    statistic: str
    figure: Figure
    published: float
    measured: float | None
    deviation: float | None


def is_void(arm: ArmResult) -> bool:
    """A single failed check makes an arm void."""
    return any(not check.ok for check in arm.checks)


def is_void_point(point: PointResult) -> bool:
    """A single failed check makes a point void, and its arm's other points stay what they are."""
    return any(not check.ok for check in point.checks)


def has_void(arm: ArmResult) -> bool:
    """Whether the arm or one of its points is void."""
    return is_void(arm) or any(map(is_void_point, arm.points))


def is_scaled(run: Run, experiment: ExperimentResult) -> bool:
    """Whether the experiment's numbers come from scaled-down parameters."""
    return run.mode == "quick" or experiment.scaled


def collect_doubts(run: Run) -> tuple[Doubt, ...]:
    """Every reason why a result of this run may not be believed, in the run's order."""
    return tuple(_doubts(run))


def _doubts(run: Run) -> Iterator[Doubt]:
    if not run.complete:
        detail = "the run ended before all its experiments did; what is missing was not measured"
        yield Doubt("whole run", "", Check("complete", ok=False, detail=detail))
    for experiment in run.experiments:
        for arm in experiment.arms:
            for where, checks in _checks_of(arm):
                yield from (Doubt(experiment.name, where, check) for check in checks if not check.ok)


def _checks_of(arm: ArmResult) -> Iterator[tuple[str, tuple[Check, ...]]]:
    """The checks of an arm and of each of its points, with the words for where that is."""
    yield arm.title, arm.checks
    for point in arm.points:
        run = f", run {point.run}" if max(other.run for other in arm.points) > 1 else ""
        yield f"{arm.group}: {arm.title} at {point.multiple:.3g} ×{run}", point.checks


def count_checks(run: Run) -> int:
    """How many checks the run made, its own completeness among them."""
    arms = (arm for experiment in run.experiments for arm in experiment.arms)
    return 1 + sum(len(checks) for arm in arms for _, checks in _checks_of(arm))


def count_unchecked(run: Run) -> int:
    """How many arms no check vouches for."""
    arms = (arm for experiment in run.experiments for arm in experiment.arms)
    return sum(not any(checks for _, checks in _checks_of(arm)) for arm in arms)


def compare_figures(arm: ArmResult, *, scaled: bool) -> tuple[Comparison, ...]:
    """The arm's published figures beside its measured ones, in published order."""
    if arm.published is None:
        return ()
    comparable = not scaled and not is_void(arm)
    return tuple(_compare(arm, figure, comparable) for figure in arm.published.figures)


def _compare(arm: ArmResult, figure: Figure, comparable: bool) -> Comparison:
    path, statistic = _split_name(arm, figure.name)
    published = _to_base(figure)
    measured = _find_measured(arm, path, statistic)
    deviation = relative_deviation(measured, published) if comparable and measured is not None else None
    return Comparison(path, statistic, figure, published, measured, deviation)


def _split_name(arm: ArmResult, name: str) -> tuple[str, str]:
    path, statistic = arm.paths[0].path if arm.paths else "", name
    if name.startswith("/"):
        path, _, statistic = name.partition(" ")
    statistic = statistic.strip().lower().replace("_", " ")
    return path, _ALIASES.get(statistic, statistic)


def _to_base(figure: Figure) -> float:
    return figure.value * UNIT_FACTORS.get(figure.unit, 1.0)


def _find_measured(arm: ArmResult, path: str, statistic: str) -> float | None:
    for result in arm.paths:
        if result.path == path and (value := _path_statistic(result, statistic)) is not None:
            return value
    return next((_to_base(figure) for figure in arm.figures if figure.name.lower() == statistic), None)


def _path_statistic(result: PathResult, statistic: str) -> float | None:
    if statistic == "throughput":
        return result.throughput
    if statistic == "success ratio":
        return result.success_ratio
    if statistic in LATENCY_STATISTICS and result.latency.count:
        return pick_statistic(result.latency, statistic)
    return None


def pick_statistic(distribution: Distribution, statistic: str) -> float:
    """One of :data:`LATENCY_STATISTICS`, in seconds."""
    return float(getattr(distribution, statistic))


def relative_deviation(measured: float, reference: float) -> float | None:
    """``measured ÷ reference − 1``; None where that says nothing."""
    if reference == 0 or not math.isfinite(reference) or not math.isfinite(measured):
        return None
    return measured / reference - 1


def decisive_arms(experiment: ExperimentResult) -> tuple[ArmResult, ...]:
    """The strongest valid stock arm and the strongest valid Headgate arm on the hardest load both met.

    Not the pair with the widest gap: among arms with the same first path and (within a tenth) the same
    offered rate, each side is represented by its best throughput. One arm, or none, if there is no such pair.
    """
    valid = [arm for arm in experiment.arms if arm.paths and not is_void(arm)]
    for hardest in sorted(valid, key=_first_offered, reverse=True):
        rivals = [arm for arm in valid if _same_load(arm, hardest)]
        stock = [arm for arm in rivals if arm.stack == "stock"]
        headgate = [arm for arm in rivals if arm.stack == "headgate"]
        if stock and headgate:
            return max(stock, key=_first_throughput), max(headgate, key=_first_throughput)
    return tuple(valid[:1])


def _first_offered(arm: ArmResult) -> float:
    return arm.paths[0].offered_rate


def _first_throughput(arm: ArmResult) -> float:
    return arm.paths[0].throughput


def _same_load(arm: ArmResult, other: ArmResult) -> bool:
    limits = [one.parameters.get("client_connections") for one in (arm, other)]
    alike = math.isclose(_first_offered(arm), _first_offered(other), rel_tol=0.1) and limits[0] == limits[1]
    return alike and arm.paths[0].path == other.paths[0].path
