"""Programs: a setting and a list of steps, generated, printed and run again as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from hypothesis import strategies as st

from . import deeds_async, deeds_changing, deeds_core, deeds_outside, deeds_reading, deeds_transactions
from .settings import Setting, draw_setting
from .steps import DEEDS, Deed, Step

DEED_MODULES = (deeds_async, deeds_changing, deeds_core, deeds_outside, deeds_reading, deeds_transactions)
"""Imported for their deeds."""

ALWAYS = (*["read"] * 3, *["end"] * 3, "outside")
SOMETIMES = {
    "change": 3,
    "object": 3,
    "bulk": 4,
    "stream": 2,
    "failing": 2,
    "transaction": 3,
    "rare end": 1,
    "block": 2,
    "core": 4,
    "core end": 2,
    "core transaction": 2,
    "core block": 2,
    "escape": 2,
    "rare": 1,
    "state": 4,
    "async": 3,
}
"""Family → weight. A program takes part of them: with everything in each, transactions would end too early."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is run on both arms."""

    setting: Setting
    steps: tuple[Step, ...]

    def literal(self) -> str:
        """Python for this program; Hypothesis would tell how it was drawn."""
        steps = "".join(f"        {one!r},\n" for one in self.steps)
        return f"Program(\n    {self.setting.literal()},\n    (\n{steps}    ),\n)"


@cache
def _family(driver: str, family: str) -> tuple[Deed, ...]:
    return tuple(one for one in DEEDS.values() if one.family == family and one.suits(driver))


def draw_program(driver: str, length: int, random: Random) -> Program:
    """A program in which every setting, family and deed is as likely as its neighbours."""
    chosen = random.sample(list(SOMETIMES), random.randint(2, 8))
    if "core" in chosen:
        chosen.append("core end")
    weighted = [family for family in chosen for _ in range(SOMETIMES[family])]
    families = [deeds for family in (*ALWAYS, *weighted) if (deeds := _family(driver, family))]
    steps = (random.choice(random.choice(families)).draw(random) for _ in range(length))
    return Program(draw_setting(driver, random), tuple(steps))


def programs(driver: str, length: int) -> st.SearchStrategy[Program]:
    """Programs of ``length`` steps."""
    return st.integers(0, 2**64 - 1).map(lambda seed: draw_program(driver, length, Random(seed)))
