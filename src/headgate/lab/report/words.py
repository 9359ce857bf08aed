"""Numbers as people read them: seconds, rates, shares, deviations.

Rounding never flatters: 99.96 % is not written as 100 %, and a small share is not written as 0 %.
"""

from __future__ import annotations

import math

from headgate.lab.results import Figure

UNKNOWN = "–"
AT_ONCE = "at once"

UNIT_FACTORS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "%": 0.01}
"""Factor that brings a figure of this unit to seconds or to a ratio; other units stay as they are."""

_SECONDS = frozenset({"s", "ms", "µs", "us"})
_RATES = frozenset({"req/s", "/s", "requests/s"})


def format_seconds(seconds: float) -> str:
    """Three significant digits in the unit that fits: ``340 µs``, ``12.3 ms``, ``2.01 s``."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds == 0:
        return "0 s"
    # 0.9995 s and more would round to «1000 ms».
    for unit, factor, below in (("µs", 1e6, 0.9995e-3), ("ms", 1e3, 0.9995)):
        if abs(seconds) < below:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds)} s"


def format_rate(rate: float) -> str:
    """Requests per second."""
    return f"{format_number(rate)}/s" if math.isfinite(rate) else UNKNOWN


def format_pace(rate: float) -> str:
    """An offered or achieved rate, which is 0 where all requests were sent at one instant."""
    return format_rate(rate) if rate else AT_ONCE


def format_number(value: float) -> str:
    """Two decimals below 100, one below 1,000, none above; whole numbers stay whole."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == int(value) and abs(value) >= 100:
        return f"{int(value):,}"
    decimals = 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}"


def format_share(share: float) -> str:
    """A ratio as per cent; only exactly 1 reads ``100 %`` and only exactly 0 reads ``0 %``."""
    if not math.isfinite(share):
        return UNKNOWN
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if 0.0 < share < 1.0:
        share = min(max(share, 0.001), 0.999)
    return f"{share * 100:.1f} %"


def format_deviation(deviation: float) -> str:
    """A relative deviation: ``+0.4 %``, ``−12 %``; from twice as much on, the factor: ``×10.4``."""
    if not math.isfinite(deviation):
        return UNKNOWN
    if deviation >= 1.0:
        return f"×{deviation + 1:.1f}"
    percent = deviation * 100
    text = f"{abs(percent):.0f}" if abs(percent) >= 10 else f"{abs(percent):.1f}"
    sign = "±" if float(text) == 0.0 else "+" if percent > 0 else "−"
    return f"{sign}{text} %"


def format_figure(value: float, unit: str) -> str:
    """A figure in its own unit; times, rates and per cent get the form used everywhere else."""
    if unit in _SECONDS:
        return format_seconds(value * UNIT_FACTORS[unit])
    if unit in _RATES:
        return format_rate(value)
    if unit == "%":
        return format_share(value / 100)
    number = f"{int(value):,}" if math.isfinite(value) and value == int(value) else format_number(value)
    return f"{number} {unit}".rstrip()


def format_published(figure: Figure) -> str:
    """Somebody else's figure with the digits they gave and no more."""
    if figure.unit in _RATES:
        return f"{figure.value:g}/s"
    return f"{figure.value:g} {figure.unit}".rstrip()


def format_span(seconds: float) -> str:
    """How long a run took: seconds below two minutes, else minutes and seconds."""
    if not seconds >= 120:
        return format_seconds(seconds)
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def format_bytes(size: int) -> str:
    """Binary units with one decimal: ``7.8 GiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def format_parameter(value: str | float | bool | None) -> str:
    """A parameter as the experiment's author would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else value


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    decimals = 2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0
    return f"{value:,.{decimals}f}"
