"""The values the page's template reads: text, counts and places, nothing left to work out."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.lab.report.charts import CurveGroup
from headgate.lab.report.goodput import PointGroup
from headgate.lab.report.reading import Doubt
from headgate.lab.results import ArmResult, Check, ExperimentResult, PathResult, Run


@dataclass(frozen=True, slots=True)
class PublishedText:
    """A published figure as it was published, and how far from it the measured one is.

    ``deviation`` is empty where the two must not be compared.
    """

    text: str
    deviation: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, the samples behind it, and what was published for it.

    ``answered`` is the same statistic over the correct answers alone, where some requests failed.
    """

    text: str
    count: int
    published: PublishedText | None = None
    answered: str = ""
    answered_count: int = 0
    too_few: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A throughput bar; each value is a share of the widest in the experiment, as an SVG percentage."""

    measured: str
    published: str
    predicted: str


@dataclass(frozen=True, slots=True)
class RowView:
    """One path of an arm; ``panel`` is its place among the experiment's chart panels.

    ``spread`` is false where every request was sent at the same moment: nothing happens second by second.
    """

    result: PathResult
    panel: int
    drawn: int
    spread: bool
    success: Cell
    throughput: Cell
    bar: Bar
    latencies: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class OtherFigure:
    """A figure without a column of its own."""

    name: str
    measured: str
    published: PublishedText | None


@dataclass(frozen=True, slots=True)
class ArmView:
    """One arm with everything the tables say about it."""

    arm: ArmResult
    void: bool
    reasons: tuple[Check, ...]
    rows: tuple[RowView, ...]
    predicted: str
    predicted_deviation: str
    others: tuple[OtherFigure, ...]


@dataclass(frozen=True, slots=True)
class PanelRow:
    """The panels of one arm's path; its connections are drawn beside its first path only."""

    arm: ArmView
    row: RowView
    with_connections: bool


@dataclass(frozen=True, slots=True)
class PanelGroup:
    """Panels that share their scales; ``title`` names their path if there are several groups."""

    title: str
    rows: tuple[PanelRow, ...]


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """One experiment; ``columns`` are the latency statistics its table shows.

    ``arms`` are all of them, ``single`` those under one load, ``groups`` those under several.
    """

    result: ExperimentResult
    index: int
    scaled: bool
    columns: tuple[str, ...]
    arms: tuple[ArmView, ...]
    single: tuple[ArmView, ...]
    groups: tuple[PointGroup, ...]
    decisive: tuple[ArmView, ...]
    curves: tuple[CurveGroup, ...]
    has_connections: bool
    panels: tuple[PanelGroup, ...]
    void_arms: int


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report."""

    run: Run
    scaled_badge: str
    doubts: tuple[Doubt, ...]
    checks: int
    unchecked_arms: int
    experiments: tuple[ExperimentView, ...]
