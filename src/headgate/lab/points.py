"""From the samples of one load to a point of an arm's curve: what was good, late, refused, failed; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low

from headgate.lab.experiment import Measurement
from headgate.lab.meter import fold_readings
from headgate.lab.report.reading import is_void_point
from headgate.lab.results import PointResult, Usage
from headgate.load.pacer import NS_PER_S, Schedule
from headgate.load.sample import Sample
from headgate.load.summary import distribution, is_good, lateness

REFUSALS = (429, 503)

BUCKET_S = 0.5
RECOVERED = 0.99
"""A service has recovered when this share of every later half second's requests is good."""

BUSY = 0.85
"""A share of its cores from which on a part of the measurement counts as used up."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a point offers.

    :ivar multiple: of ``capacity``, which is in requests per second.
    :ivar path: of the work; the other path needs no database.
    :ivar wanted_s: an answer after that is late.
    :ivar server_cores: how many the database server may use.
    """

    multiple: float
    capacity: float
    run: int
    duration_s: float
    wanted_s: float
    path: str
    server_cores: int


def fold_point(measured: Measurement, offer: Offer) -> PointResult:
    """Return what became of one load."""
    work = [sample for sample in measured.samples if sample.target == offer.path]
    pings = [sample for sample in measured.samples if sample.target != offer.path]
    answered = [sample for sample in work if sample.success]
    refusals = [sample for sample in work if is_refusal(sample)]
    good = sum(is_good(sample, offer.wanted_s) for sample in answered)
    usage = fold_readings(measured.readings, until_s=offer.duration_s, generator_cpu=measured.generator_cpu)
    return PointResult(
        multiple=offer.multiple,
        run=offer.run,
        capacity=offer.capacity,
        duration=offer.duration_s,
        offered_rate=len(work) / offer.duration_s,
        achieved_rate=_achieved_rate(work, offer.duration_s),
        requests=len(work),
        good=good,
        late=len(answered) - good,
        refused=len(refusals),
        failed=len(work) - len(answered) - len(refusals),
        goodput=good / offer.duration_s,
        answered=distribution(sample.latency_ns for sample in answered),
        refusals=distribution(sample.latency_ns for sample in refusals),
        ping_requests=len(pings),
        pings=distribution(sample.latency_ns for sample in pings if sample.success),
        usage=usage,
        limit=name_limit(usage, offer.server_cores),
        lateness=lateness(measured.samples),
        checks=measured.checks,
        attempts=measured.attempts,
    )


def is_refusal(sample: Sample) -> bool:
    """Whether a request was told at once, or later, that the service is too busy for it."""
    return sample.status in REFUSALS and not sample.error


def _achieved_rate(samples: Sequence[Sample], duration_s: float) -> float:
    """Requests per second of the time they were really sent in, which a late generator makes longer."""
    last_ns = max((sample.started_ns for sample in samples), default=0)
    return len(samples) / max(duration_s, last_ns / NS_PER_S)


def name_limit(usage: Usage, server_cores: int) -> str:
    """Return what was used up, of the three that need processors; if nothing was, requests waited for their turn."""
    shares = {
        "the service’s core": usage.service_cpu,
        "the server’s cores": usage.server_cpu / max(1, server_cores),
        "the generator’s core": usage.generator_cpu,
    }
    used_up = [name for name, share in shares.items() if share >= BUSY]
    return " and ".join(used_up) or "no processor"


# Several runs of a point.


@dataclass(frozen=True, slots=True)
class Middle:
    """The runs of one point: the one with the median goodput, and how far apart all valid ones were.

    :ivar point: of an even number the lower of the middle two; a void one only if all are.
    """

    point: PointResult
    lowest: float
    highest: float
    runs: int

    @property
    def share(self) -> float:
        """Goodput ÷ capacity."""
        return self.point.goodput / self.point.capacity


def find_middles(points: Iterable[PointResult]) -> tuple[Middle, ...]:
    """Return one for every multiple, in ascending order."""
    by_multiple: defaultdict[float, list[PointResult]] = defaultdict(list)
    for point in points:
        by_multiple[point.multiple].append(point)
    return tuple(_find_middle(by_multiple[multiple]) for multiple in sorted(by_multiple))


def _find_middle(runs: Sequence[PointResult]) -> Middle:
    counted = [run for run in runs if not is_void_point(run)] or list(runs)
    goodputs = [run.goodput for run in counted]
    middle = median_low(goodputs)
    point = next(run for run in counted if run.goodput == middle)
    return Middle(point, min(goodputs), max(goodputs), len(counted))


# What happens after an overload, and while the server is frozen.


def recovery_s(samples: Iterable[Sample], *, from_s: float, wanted_s: float) -> float | None:
    """Seconds from ``from_s`` until every later half second has 99 % good answers; None if that never came.

    Half seconds are told by intended start; the last, which may be cut short, counts like the others.
    """
    return _settled_s(samples, from_s, lambda sample: is_good(sample, wanted_s))


def _settled_s(samples: Iterable[Sample], from_s: float, is_well: Callable[[Sample], bool]) -> float | None:
    buckets: defaultdict[int, list[bool]] = defaultdict(list)
    for sample in samples:
        after_ns = sample.intended_ns - round(from_s * NS_PER_S)
        if after_ns >= 0:
            buckets[after_ns // round(BUCKET_S * NS_PER_S)].append(is_well(sample))
    unwell = [number for number, flags in buckets.items() if sum(flags) < RECOVERED * len(flags)]
    first_well = max(unwell, default=-1) + 1
    return first_well * BUCKET_S if buckets and first_well <= max(buckets) else None


def first_refusal_s(samples: Iterable[Sample], *, from_s: float) -> float | None:
    """Seconds from ``from_s`` until somebody was told that the service is too busy; None if nobody was."""
    from_ns = round(from_s * NS_PER_S)
    ended_ns = [sample.ended_ns for sample in samples if is_refusal(sample) and sample.ended_ns >= from_ns]
    return (min(ended_ns) - from_ns) / NS_PER_S if ended_ns else None


# Schedules.


def in_sequence(parts: Iterable[tuple[Schedule, float]]) -> Schedule:
    """Return schedules one after the other; each begins when the seconds of the one before are over."""
    offsets_ns: list[int] = []
    targets: list[int] = []
    begin_ns = 0
    for schedule, duration_s in parts:
        offsets_ns.extend(begin_ns + offset_ns for offset_ns in schedule.offsets_ns)
        targets.extend(schedule.targets)
        begin_ns += round(duration_s * NS_PER_S)
    return Schedule(offsets_ns, targets)
