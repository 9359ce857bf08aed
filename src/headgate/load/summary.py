"""From samples to figures: rates, latencies, points for the charts.

Rates and times are counted as vegeta counts them, with one difference: a request starts when it was due, not
when the generator came to send it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headgate.load.pacer import NS_PER_S
from headgate.load.sample import Sample

MAX_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class Distribution:
    """Order statistics of ``count`` values, in seconds; all 0.0 when ``count`` is 0.

    Percentiles are exact, by nearest rank: ``p99`` is the smallest of the values that at least 99 % of them
    do not exceed, so it is always a value that was measured.
    """

    count: int
    min: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class PathResult:
    """What one request path of an arm answered.

    :ivar successes: whole answers with a status of 200 to 399.
    :ivar offered_rate: requests ÷ ``duration``; 0.0 if all were due at one instant.
    :ivar achieved_rate: requests ÷ time between the first and the last real start; 0.0 likewise.
    :ivar throughput: successes ÷ (``duration`` + ``wait``).
    :ivar duration: from the first to the last intended start.
    :ivar wait: from the last intended start to the last answer or failure.
    :ivar latency: of all requests from their intended start, a failed one with the time until it failed.
    :ivar statuses: requests by HTTP status; ``"0"`` counts those without an answer.
    :ivar errors: requests by error word.

    ``points`` holds at most 2,000 ``(intended start, latency, success)`` rows for the charts, evenly thinned.
    ``timeline`` holds one ``(second, offered, good, failed)`` row per second, by intended start; good are the
    successes, failed the rest. Both count from the start of the run, so paths of one run share their axis.
    """

    path: str
    requests: int
    successes: int
    offered_rate: float
    achieved_rate: float
    throughput: float
    success_ratio: float
    duration: float
    wait: float
    latency: Distribution
    latency_success: Distribution
    statuses: dict[str, int]
    errors: dict[str, int]
    points: tuple[tuple[float, float, bool], ...]
    timeline: tuple[tuple[int, int, int, int], ...]


def summarize(path: str, samples: Iterable[Sample]) -> PathResult:
    """The figures of some requests of one run; all zero if there are none."""
    ordered = sorted(samples, key=lambda sample: sample.intended_ns)
    successes = [sample for sample in ordered if sample.success]
    span = _Span.of(ordered)
    return PathResult(
        path=path,
        requests=len(ordered),
        successes=len(successes),
        offered_rate=_rate(len(ordered), span.intended_ns),
        achieved_rate=_rate(len(ordered), span.started_ns),
        throughput=_rate(len(successes), span.intended_ns + span.wait_ns),
        success_ratio=len(successes) / len(ordered) if ordered else 0.0,
        duration=span.intended_ns / NS_PER_S,
        wait=span.wait_ns / NS_PER_S,
        latency=distribution(sample.latency_ns for sample in ordered),
        latency_success=distribution(sample.latency_ns for sample in successes),
        statuses=_by_count(Counter(str(sample.status) for sample in ordered)),
        errors=_by_count(Counter(sample.error for sample in ordered if sample.error)),
        points=_points(ordered),
        timeline=_timeline(ordered),
    )


def summarize_paths(samples: Iterable[Sample]) -> tuple[PathResult, ...]:
    """One result for each target, in the order in which they first appear."""
    by_target: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_target[sample.target].append(sample)
    return tuple(summarize(target, group) for target, group in by_target.items())


def distribution(values_ns: Iterable[int]) -> Distribution:
    """Order statistics, in seconds, of values in nanoseconds."""
    ordered = sorted(values_ns)
    if not ordered:
        return Distribution(0, *[0.0] * 7)
    return Distribution(
        count=len(ordered),
        min=ordered[0] / NS_PER_S,
        mean=sum(ordered) / len(ordered) / NS_PER_S,
        p50=percentile(ordered, 50) / NS_PER_S,
        p90=percentile(ordered, 90) / NS_PER_S,
        p95=percentile(ordered, 95) / NS_PER_S,
        p99=percentile(ordered, 99) / NS_PER_S,
        max=ordered[-1] / NS_PER_S,
    )


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Nearest rank: value number ``ceil(percent / 100 * n)`` of ``n`` values in ascending order."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def lateness(samples: Iterable[Sample]) -> Distribution:
    """How late the generator itself was: real minus intended start."""
    return distribution(sample.lateness_ns for sample in samples)


def is_good(sample: Sample, wanted_s: float) -> bool:
    """A correct answer within the wanted time of its intended start."""
    return sample.success and sample.latency_ns <= wanted_s * NS_PER_S


def goodput(samples: Iterable[Sample], wanted_s: float) -> float:
    """Good answers per second of the schedule (first to last intended start); late ones do not count.

    0.0 if all requests were due at one instant: count those with ``is_good``.
    """
    judged = [(sample.intended_ns, is_good(sample, wanted_s)) for sample in samples]
    if not judged:
        return 0.0
    intended_ns = [due_ns for due_ns, _ in judged]
    return _rate(sum(good for _, good in judged), max(intended_ns) - min(intended_ns))


@dataclass(frozen=True, slots=True)
class _Span:
    """How long the intended starts, the real starts, and the wait after the last intended start took."""

    intended_ns: int
    started_ns: int
    wait_ns: int

    @classmethod
    def of(cls, ordered: Sequence[Sample]) -> _Span:
        if not ordered:
            return cls(0, 0, 0)
        first_ns, last_ns = ordered[0].intended_ns, ordered[-1].intended_ns
        started_ns = [sample.started_ns for sample in ordered]
        end_ns = max(sample.ended_ns for sample in ordered)
        return cls(last_ns - first_ns, max(started_ns) - min(started_ns), max(0, end_ns - last_ns))


def _rate(count: int, span_ns: int) -> float:
    return count * NS_PER_S / span_ns if span_ns > 0 else 0.0


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _points(ordered: Sequence[Sample]) -> tuple[tuple[float, float, bool], ...]:
    step = max(1, math.ceil(len(ordered) / MAX_POINTS))
    return tuple(
        (sample.intended_ns / NS_PER_S, sample.latency_ns / NS_PER_S, sample.success) for sample in ordered[::step]
    )


def _timeline(ordered: Sequence[Sample]) -> tuple[tuple[int, int, int, int], ...]:
    if not ordered:
        return ()
    offered = Counter(sample.intended_ns // NS_PER_S for sample in ordered)
    good = Counter(sample.intended_ns // NS_PER_S for sample in ordered if sample.success)
    seconds = range(min(offered), max(offered) + 1)
    return tuple((second, offered[second], good[second], offered[second] - good[second]) for second in seconds)
