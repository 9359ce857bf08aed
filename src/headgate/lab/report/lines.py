"""How the lines of a chart look, so that no one needs colours to tell them apart."""

from __future__ import annotations

from headgate.lab.report.reading import is_void
from headgate.lab.results import ArmResult

_DASHES: dict[str, tuple[tuple[int, ...], ...]] = {
    "stock": ((7, 4), (2, 3), (12, 4, 2, 4), (4, 8), (16, 6)),
    "headgate": ((), (22, 3), (22, 3, 3, 3), (22, 3, 3, 3, 3, 3), (30, 8)),
}
_VOID_DASH = (1, 5)
_SHADES = 3


def line_style(arm: ArmResult, turn: int) -> tuple[str, tuple[int, ...]]:
    """Colour and dash of a stack's ``turn``-th line; 15 combinations before one comes again."""
    if is_void(arm):
        return "void", _VOID_DASH
    dashes = _DASHES[arm.stack]
    return f"{arm.stack}-{turn % _SHADES}", dashes[turn % len(dashes)]
