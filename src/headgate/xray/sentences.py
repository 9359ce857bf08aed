"""What is said: a sentence with its figures, and how times, rates, shares and counts are written in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from headgate.xray.observation import NOWHERE, Site

Kind = Literal[
    "connections",
    "threads",
    "core",
    "loop",
    "client",
    "server",
    "not saturated",
    "hold",
    "remedy",
    "stall",
    "repeat",
    "twice",
    "send",
    "after answer",
    "leak",
    "unattributed",
    "unfinished",
    "note",
]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing that was found, with the figures in it: seconds, shares, counts and requests per second."""

    kind: Kind
    text: str
    figures: dict[str, float] = field(default_factory=dict)
    site: Site | None = None


def seconds(value: float) -> str:
    """A time as people read it: ``2.00 s``, ``3 ms``, ``0.4 ms``."""
    if value >= 0.995:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    if value >= 0.00995:
        return f"{value * 1e3:.0f} ms"
    return f"{value * 1e3:.1f}".removesuffix(".0") + " ms" if value >= 0.000_95 else f"{value * 1e6:.0f} µs"


def rate(value: float) -> str:
    """Requests per second as people read them: ``7.5``, ``5,000``."""
    if math.isinf(value):
        return "any number of"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0")


def share(value: float) -> str:
    """A part of a whole: ``34 %``, ``0.2 %``."""
    return f"{value:.0%}".replace("%", " %") if value >= 0.0995 or value == 0 else f"{value:.1%}".replace("%", " %")


def many(count: int, one: str) -> str:
    """So many of something: ``1 connection``, ``2,000 connections``."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def place(site: Site, what: str) -> str:
    """What is done where: ``asyncio.sleep at app.py:61``, or either alone."""
    written = what or (f"«{site.text}»" if site.text else "code")
    return written if site == NOWHERE else f"{written} at {site}"
