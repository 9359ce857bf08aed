"""When each request is due: pure, seeded schedules of intended starts.

An intended start is a whole number of nanoseconds after the start of the run. A schedule is made before the
run and never looks at a clock, so every arm of an experiment meets the same arrivals.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import repeat

from headgate.errors import LoadError

NS_PER_S = 1_000_000_000

MAX_REQUESTS = 20_000_000
"""A plan and its samples are held in memory, some 45 bytes a request: this is about 1 GB."""

Exact = int | float | Fraction
"""Taken as it is written: the float 0.1 means one tenth, not the binary number next to it."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Request ``i`` goes to target number ``targets[i]``, ``offsets_ns[i]`` after the start of the run.

    Offsets never decrease; requests due at the same instant leave in the order they have here.
    """

    offsets_ns: Sequence[int]
    targets: Sequence[int]

    def __len__(self) -> int:
        return len(self.offsets_ns)


def constant(rate: Exact, duration_s: Exact) -> Sequence[int]:
    """Request ``i`` is due at exactly ``i / rate``, rounded up to a nanosecond: never early, never adrift.

    :returns: the ``ceil(rate * duration_s)`` offsets that lie before ``duration_s``.
    :raises LoadError: if rate or duration is not a positive number, or the plan is too large to hold.
    """
    per_second, seconds = _positive("rate", rate), _positive("duration", duration_s)
    count = _bounded(math.ceil(per_second * seconds))
    step = NS_PER_S * per_second.denominator
    return array("q", (-(-i * step // per_second.numerator) for i in range(count)))


def poisson(rate: Exact, duration_s: Exact, seed: int) -> Sequence[int]:
    """Independent arrivals: exponential gaps of mean ``1 / rate``, the same for the same seed.

    The gaps are drawn by inversion from ``random.Random(seed).random()``, whose sequence Python keeps stable.

    :raises LoadError: as ``constant``.
    """
    per_second, seconds = _positive("rate", rate), _positive("duration", duration_s)
    _bounded(math.ceil(per_second * seconds))
    draw = random.Random(seed).random
    mean_gap_ns, end_ns = float(NS_PER_S / per_second), float(seconds * NS_PER_S)
    offsets = array("q")
    due_ns = -math.log(1.0 - draw()) * mean_gap_ns
    while due_ns < end_ns:
        offsets.append(int(due_ns))
        due_ns -= math.log(1.0 - draw()) * mean_gap_ns
    return offsets


def burst(count: int) -> Sequence[int]:
    """``count`` requests, all due at the start.

    :raises LoadError: if ``count`` is not positive, or the plan is too large to hold.
    """
    if count < 1:
        raise LoadError(f"requests {count} is not a positive number; ask for at least 1 request")
    return array("q", repeat(0, _bounded(count)))


def in_turn(offsets_ns: Sequence[int], targets: int) -> Schedule:
    """One stream of arrivals dealt out to ``targets`` targets in turn."""
    return Schedule(offsets_ns, array("H", (i % targets for i in range(len(offsets_ns)))))


def together(streams: Iterable[Sequence[int]]) -> Schedule:
    """One stream of arrivals for each target, merged; at the same instant the earlier stream goes first."""
    labelled = [zip(offsets, repeat(target)) for target, offsets in enumerate(streams)]
    offsets_ns, targets = array("q"), array("H")
    for offset_ns, target in merge(*labelled):
        offsets_ns.append(offset_ns)
        targets.append(target)
    return Schedule(offsets_ns, targets)


def _positive(name: str, value: Exact) -> Fraction:
    try:
        exact = Fraction(str(value))
    except ValueError as error:
        raise LoadError(f"{name} {value} is not a finite number; give a number above 0") from error
    if exact <= 0:
        raise LoadError(f"{name} {value} is not above 0; give a number above 0")
    return exact


def _bounded(count: int) -> int:
    if count > MAX_REQUESTS:
        raise LoadError(
            f"{count:,} requests are more than the {MAX_REQUESTS:,} one run can hold; lower the rate or the duration"
        )
    return count
