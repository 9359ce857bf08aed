"""Interleaved comparison: arms take turns in one process, and the ratio of two arms is taken round by round.

Whatever disturbs the machine for longer than a round disturbs all arms alike and falls out of the ratio.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice, permutations

Arm = Callable[[int], int]
"""Does so many operations and returns the nanoseconds they took."""

WARM_UP_ROUNDS = 3
"""Dropped: they connect, fill the statement caches, and let the drivers prepare."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: ``rounds`` of ``operations`` each, for every arm."""

    rounds: int
    operations: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of a sample and how wide it is."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Quartiles, by linear interpolation; of a single value three times that value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured: for each arm the nanoseconds of one operation, round by round."""

    plan: Plan
    took_ns: Mapping[str, list[float]]

    def of(self, arm: str) -> Spread:
        """Nanoseconds of one operation."""
        return Spread.of(self.took_ns[arm])

    def ratio(self, numerator: str, denominator: str) -> Spread:
        """Spread of the ratios of the rounds, not the ratio of the medians."""
        pairs = zip(self.took_ns[numerator], self.took_ns[denominator], strict=True)
        return Spread.of([one / other for one, other in pairs])


def compare(arms: Mapping[str, Arm], plan: Plan) -> Comparison:
    """Run every arm once a round; the order goes through all permutations, so no arm always follows another."""
    took_ns: dict[str, list[float]] = {name: [] for name in arms}
    gc.collect()
    gc.freeze()  # what was imported need not be looked through between turns
    for number, order in enumerate(islice(cycle(permutations(arms)), WARM_UP_ROUNDS + plan.rounds)):
        for name in order:
            took = run_undisturbed(arms[name], plan.operations)
            if number >= WARM_UP_ROUNDS:
                took_ns[name].append(took / plan.operations)
    return Comparison(plan, took_ns)


def run_undisturbed(arm: Arm, operations: int) -> int:
    """One arm's turn: its garbage is collected before it, not by whoever comes next."""
    gc.collect()
    gc.disable()
    try:
        return arm(operations)
    finally:
        gc.enable()
