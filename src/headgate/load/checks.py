"""Reasons not to believe a load result, each as one checkable statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headgate.load.sample import Sample
from headgate.load.summary import percentile

LATENESS_LIMIT_NS = 5_000_000
CPU_LIMIT = 0.8

BURST_STEP_NS = 100_000
"""What one request of a burst may cost the generator. No generator sends two requests at one instant: request
``k`` of those due together may leave ``k`` steps later. Measured: 0.02 to 0.06 ms where each needs a connection."""

_OWN_LIMITS = {
    "descriptors": "raise the limit of open files (ulimit -n)",
    "ports": "limit the connections, or let the server keep them alive",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A reason to believe or not to believe a result. ``ok`` false on any check makes an arm void."""

    name: str
    ok: bool
    detail: str


def check_load(samples: Sequence[Sample], *, planned: int, issued: int, generator_cpu: float) -> tuple[Check, ...]:
    """Every check of one run, in a fixed order; the names are ``lateness``, ``cpu``, ``lost`` and ``limits``.

    :param planned: requests in the schedule.
    :param issued: requests the generator really sent or tried to send.
    :param generator_cpu: its CPU seconds per second of the run.
    """
    return (
        check_lateness(samples),
        check_cpu(generator_cpu),
        check_lost(samples, planned=planned, issued=issued),
        check_own_limits(samples),
    )


def check_lateness(samples: Sequence[Sample]) -> Check:
    """99 % of the requests left at most 5 ms late, not counting the unavoidable queue inside a burst."""
    all_ns = sorted(sample.lateness_ns for sample in samples)
    if not all_ns:
        return Check("lateness", False, "no request was sent")
    beyond_ns = percentile(sorted(_beyond_burst(samples)), 99)
    detail = f"p99 {_ms(percentile(all_ns, 99))} of {len(all_ns)} requests"
    largest = max(Counter(sample.intended_ns for sample in samples).values())
    if largest > 1:
        detail += f", {_ms(beyond_ns)} beyond the {_ms(BURST_STEP_NS)} a request of a burst (largest: {largest})"
    return Check("lateness", beyond_ns <= LATENESS_LIMIT_NS, f"{detail}; at most {_ms(LATENESS_LIMIT_NS)}")


def check_cpu(generator_cpu: float) -> Check:
    """The generator left a fifth of its core idle, so it was not the limit."""
    return Check("cpu", generator_cpu <= CPU_LIMIT, f"{generator_cpu:.0%} of one core; at most {CPU_LIMIT:.0%}")


def check_lost(samples: Sequence[Sample], *, planned: int, issued: int) -> Check:
    """Every planned request was sent, and every one sent was answered or failed."""
    answered = sum(1 for sample in samples if not sample.error)
    failed = len(samples) - answered
    return Check(
        "lost",
        planned == issued == answered + failed,
        f"{planned} planned, {issued} sent, {answered} answered, {failed} failed",
    )


def check_own_limits(samples: Iterable[Sample]) -> Check:
    """No request failed because the generator itself ran out of something."""
    counts = Counter(sample.error for sample in samples if sample.error in _OWN_LIMITS)
    if not counts:
        return Check("limits", True, "the generator ran out of nothing")
    found = "; ".join(f"{count} requests lacked {word}: {_OWN_LIMITS[word]}" for word, count in counts.items())
    return Check("limits", False, found)


def _beyond_burst(samples: Iterable[Sample]) -> list[int]:
    place_in_burst: Counter[int] = Counter()
    beyond_ns = []
    for sample in samples:
        beyond_ns.append(max(0, sample.lateness_ns - place_in_burst[sample.intended_ns] * BURST_STEP_NS))
        place_in_burst[sample.intended_ns] += 1
    return beyond_ns


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f} ms"
