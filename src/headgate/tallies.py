"""What a gate counts, and its statistics and status line."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Final

WAIT_BOUNDS_NS: Final = tuple(round(milliseconds * 1e6) for milliseconds in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
"""Upper bounds of the classes that waits are counted in, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A snapshot of the gate; times in nanoseconds, counters since the start.

    Of the ``connections`` of the budget ``in_use`` run a statement or are pinned, ``warm`` are left with their
    holders between two statements, ``idle`` are open and nobody's.

    :ivar pending: how many wait.
    :ivar acquired: how many got a connection, at once or after having waited.
    :ivar waited: how many of those had waited.
    :ivar wait_time_ns: how long, all together.
    :ivar mean_use_ns: how long a lease uses its connection, as a mean of the latest.
    :ivar revoked: warm leases that somebody else got.
    :ivar waits: how many of those who got a connection had waited up to each bound of ``WAIT_BOUNDS_NS``; the last
        number counts those who had waited longer.
    :ivar shed: refused at once, by reason.
    :ivar dropped: refused after having waited, by reason.
    :ivar overloaded: only as many newcomers may wait as are served soon.
    """

    connections: int
    in_use: int
    warm: int
    idle: int
    pending: int
    oldest_wait_ns: int
    acquired: int
    waited: int
    wait_time_ns: int
    waits: tuple[int, ...]
    mean_use_ns: int
    revoked: int
    shed: dict[str, int]
    dropped: dict[str, int]
    overloaded: bool

    def __str__(self) -> str:
        overloaded = ", overloaded" if self.overloaded else ""
        return (
            f"in use {self.in_use} of {self.connections}, warm {self.warm}, idle {self.idle}, pending {self.pending}, "
            f"oldest wait {self.oldest_wait_ns / 1e6:.0f} ms{overloaded}"
        )


class Tally:
    """The gate's counters since the start; all but ``revoked`` change under its lock."""

    __slots__ = ("_waits", "acquired", "dropped", "revoked", "shed", "wait_time_ns", "waited")

    def __init__(self) -> None:
        self.acquired = 0
        self.revoked = 0
        self.shed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.waited = 0
        self.wait_time_ns = 0
        self._waits = [0] * (len(WAIT_BOUNDS_NS) + 1)

    def count_grant(self, waited_ns: int) -> None:
        """Count somebody who has waited and got a connection."""
        self.acquired += 1
        self.waited += 1
        self.wait_time_ns += waited_ns
        self._waits[bisect_left(WAIT_BOUNDS_NS, waited_ns)] += 1

    def waits(self) -> tuple[int, ...]:
        """How long those who got a connection had waited, as in ``GateStatistics``: most had not to."""
        return (self._waits[0] + self.acquired - self.waited, *self._waits[1:])
