"""What has been played on both arms: programs, steps, and how often each deed went without an error."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

LONG = 20
"""Steps a program must have been drawn with to count as a long one."""


@dataclass(frozen=True, slots=True)
class Played:
    """One step that both arms took alike."""

    deed: str
    went_well: bool
    """Neither arm's outcome was an error."""


@dataclass(slots=True)
class Tally:
    """Only programs played to their end count, and only once, however often a failing one was played."""

    programs: int = 0
    long_programs: int = 0
    drawn: int = 0
    steps: int = 0
    """With the closing of what was open, and rollbacks after failed reads."""
    stock_failed: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    went_well: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def add(self, drawn: int, played: Iterable[Played]) -> None:
        """Count a program of ``drawn`` steps."""
        self.programs += 1
        self.long_programs += drawn >= LONG
        self.drawn += drawn
        for one in played:
            self.steps += 1
            self.taken[one.deed] += 1
            self.went_well[one.deed] += one.went_well

    def line(self) -> str:
        """The figures of all programs so far."""
        elapsed = time.monotonic() - self.began
        mean = self.drawn / self.programs if self.programs else 0.0
        return (
            f"{self.programs} programs, {self.long_programs} of at least {LONG} steps, {mean:.1f} drawn on average, "
            f"{self.steps} steps taken, {self.steps / elapsed:.0f} a second, {elapsed / 60:.1f} min; "
            f"{self.stock_failed} more left where stock failed"
        )

    def table(self) -> str:
        """Deed, how often it was taken, and how often both arms did it without an error; the rarest first."""
        rows = sorted((self.went_well[name], taken, name) for name, taken in self.taken.items())
        return "\n".join(f"  {name:<28} {taken:>8} {well:>8}" for well, taken, name in rows)
