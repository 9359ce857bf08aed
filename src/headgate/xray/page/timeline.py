"""Where the bars of a page stand: phases of many requests, and of one, instant by instant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from headgate.names import PHASES, UNATTRIBUTED
from headgate.xray.explain import seconds
from headgate.xray.observation import Mark, RequestSample, RouteSum

LEAST_WIDTH: Final = 0.2
"""Per cent: what is shorter would not be seen."""

TICKS: Final = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a bar, in per cent of its width."""

    phase: str
    x: str
    width: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One phase of a request: when it was open, whatever else was too."""

    phase: str
    total: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class RequestView:
    """One request.

    :ivar title: ``Slowest``, ``Median``, ``Typical``.
    :ivar counted: the phase that each instant was charged to.
    """

    title: str
    total: str
    facts: str
    counted: tuple[Segment, ...]
    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[str, str], ...]


def mean_bar(times_ns: Sequence[int], count: int) -> tuple[Segment, ...]:
    """The phases of an average request, one after the other."""
    total_ns = sum(times_ns)
    segments, at_ns = [], 0
    for phase, time_ns in enumerate(times_ns):
        if time_ns:
            title = f"{PHASES[phase]} {seconds(time_ns / max(1, count) / 1e9)}, {share_of(time_ns, total_ns)}"
            segments.append(_segment(phase, at_ns, at_ns + time_ns, total_ns, title))
            at_ns += time_ns
    return tuple(segments)


def share_of(part: float, whole: float) -> str:
    """Per cent; a small one is not written as none."""
    if not whole:
        return "–"
    share = part / whole
    return f"{share:.1%}".replace("%", " %") if share >= 0.001 or not share else "< 0.1 %"


def counted(marks: Iterable[Mark], total_ns: int) -> list[Mark]:
    """What each instant counts as: the first of the open phases, as in a ledger."""
    known = [mark for mark in marks if mark[1] < mark[2]]
    edges = sorted({0, total_ns, *(edge for _, from_ns, to_ns in known for edge in (from_ns, to_ns))})
    found: list[Mark] = []
    for from_ns, to_ns in pairwise(edges):
        phase = min((one for one, begin, end in known if begin <= from_ns and to_ns <= end), default=UNATTRIBUTED)
        if found and found[-1][0] == phase:
            found[-1] = (phase, found[-1][1], to_ns)
        else:
            found.append((phase, from_ns, to_ns))
    return found


def show_requests(route: RouteSum) -> tuple[RequestView, ...]:
    """The slowest, the one nearest the median, and the one whose phases are nearest the mean's."""
    titles: dict[RequestSample, list[str]] = {}
    for title, sample in _choose(route):
        titles.setdefault(sample, []).append(title)
    return tuple(_view(_together(names), sample) for sample, names in titles.items())


def _together(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}".capitalize() if first else last.capitalize()


def _choose(route: RouteSum) -> list[tuple[str, RequestSample]]:
    samples = route.samples
    if not samples:
        return []
    spread = [sample for sample in samples if not sample.is_slow] or list(samples)
    latencies = route.latencies_ns
    median_ns = latencies[(len(latencies) - 1) // 2] if latencies else 0
    mean_ns = [time_ns / max(1, route.count) for time_ns in route.times_ns]
    return [
        ("slowest", max(samples, key=lambda one: one.total_ns)),
        ("median", min(spread, key=lambda one: abs(one.total_ns - median_ns))),
        ("typical", min(spread, key=lambda one: _distance(one.times_ns, mean_ns))),
    ]


def _distance(times_ns: Sequence[int], mean_ns: Sequence[float]) -> float:
    return sum(abs(one - other) for one, other in zip(times_ns, mean_ns, strict=True))


def _view(title: str, sample: RequestSample) -> RequestView:
    total_ns = max(1, sample.total_ns)
    status = f"status {sample.status}" if sample.status else "no answer"
    lanes = []
    for phase in sorted({mark[0] for mark in sample.marks}):
        own = [mark for mark in sample.marks if mark[0] == phase]
        open_ns = sum(to_ns - from_ns for _, from_ns, to_ns in own)
        lanes.append(Lane(PHASES[phase], seconds(open_ns / 1e9), _segments(own, total_ns)))
    return RequestView(
        title=title,
        total=seconds(sample.total_ns / 1e9),
        facts=f"{status}, came after {seconds(sample.came_ns / 1e9)}",
        counted=_segments(counted(sample.marks, total_ns), total_ns),
        lanes=tuple(lanes),
        ticks=tuple((f"{100 * n // TICKS}%", seconds(total_ns * n / TICKS / 1e9)) for n in range(1, TICKS)),
    )


def _segments(marks: Iterable[Mark], total_ns: int) -> tuple[Segment, ...]:
    return tuple(_segment(*mark, total_ns, _title(*mark)) for mark in marks)


def _title(phase: int, from_ns: int, to_ns: int) -> str:
    return (
        f"{PHASES[phase]} {seconds((to_ns - from_ns) / 1e9)}, from {seconds(from_ns / 1e9)} to {seconds(to_ns / 1e9)}"
    )


def _segment(phase: int, from_ns: int, to_ns: int, total_ns: int, title: str) -> Segment:
    width = min(100.0, max(LEAST_WIDTH, 100 * (to_ns - from_ns) / total_ns))
    x = min(100 * from_ns / total_ns, 100 - width)
    return Segment(PHASES[phase], f"{x:.2f}%", f"{width:.2f}%", title)
