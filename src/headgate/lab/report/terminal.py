"""The report for the terminal: failing checks first, a table and a one-line verdict per experiment.

Without colour, and where the encoding has no typographic signs, every word of it still stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from headgate.lab.report.goodput import group_points
from headgate.lab.report.reading import collect_doubts, count_checks, count_unchecked, is_scaled, is_void
from headgate.lab.report.sheet import Line, Sheet, point_caption, point_lines, sheet_caption, sheet_lines
from headgate.lab.results import ExperimentResult, Run

NARROW = 96
"""Below this many columns the tables leave out what stands in the report anyway."""

NARROW_FOR_POINTS = 112

_GAP = 2
_FEWEST_FOR_LABELS = 8

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_TO_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "≈": "~",
        "–": "-",
        "—": "-",
        "−": "-",
        "±": "+-",
        "×": "x",
        "÷": "/",
        "→": "->",
        "≤": "<=",
        "≥": ">=",
        "·": "-",
        "…": "...",
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "«": '"',
        "»": '"',
        "µ": "u",
        "\u00a0": " ",
    }
)


def print_run(run: Run, console: Console) -> None:
    """Print the whole run: why not to believe it, then each experiment's table and verdict."""
    paper = _Paper(console)
    _print_doubts(run, paper)
    for experiment in run.experiments:
        _print_experiment(run, experiment, paper)
    _print_verdicts(run, paper)


class _Paper:
    """A console that takes plain text: no markup, no control characters, no sign its encoding lacks."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ascii = console.options.ascii_only
        self.narrow = console.width < NARROW

    def plain(self, content: str) -> str:
        content = _CONTROL.sub("", content)
        if self.ascii:
            content = content.translate(_TO_ASCII).encode("ascii", "replace").decode()
        return content

    def print(self, *parts: tuple[str, str]) -> None:
        texts = (Text(self.plain(content), style=style) for content, style in parts)
        self.console.print(Text("").join(texts), highlight=False)


def _print_doubts(run: Run, paper: _Paper) -> None:
    doubts = collect_doubts(run)
    if doubts:
        paper.print((f"Why a result may not be believed: {len(doubts)} failed checks", "bold red"))
    for doubt in doubts:
        where = f"{doubt.experiment}, {doubt.arm}" if doubt.arm else doubt.experiment
        paper.print(("✗ ", "bold red"), (f"{where}: ", "bold"), (f"{doubt.check.name}: {doubt.check.detail}", ""))
    if not doubts:
        paper.print((f"No check failed, of {count_checks(run)}.", "green"))
    if unchecked := count_unchecked(run):
        paper.print(("✗ ", "bold red"), (f"{unchecked} arms were not checked.", ""))
    for note in run.notes:
        paper.print((note, "dim"))
    paper.console.print()


def _print_experiment(run: Run, experiment: ExperimentResult, paper: _Paper) -> None:
    paper.print((experiment.name, "bold"), (f": {experiment.question}", ""))
    sheet = Sheet(experiment, scaled=is_scaled(run, experiment), narrow=paper.narrow)
    _print_points(run, sheet, paper)
    if any(arm.paths for arm in experiment.arms):
        _print_table("arm", list(sheet.headings()), list(sheet_lines(sheet)), paper)
        paper.print((sheet_caption(run, sheet), "dim"))
    paper.console.print()


def _print_points(run: Run, sheet: Sheet, paper: _Paper) -> None:
    groups = group_points(sheet.experiment)
    narrow = paper.console.width < NARROW_FOR_POINTS
    for group in groups:
        paper.print((f"{group.title}: C = {group.capacity}", "bold"))
        _print_table("load", list(sheet.point_headings(narrow=narrow)), list(point_lines(group, narrow=narrow)), paper)
    if groups:
        void = any(row.void for group in groups for curve in group.curves for row in curve.rows)
        paper.print((point_caption(run, sheet, narrow=narrow, any_void=void), "dim"))
        paper.console.print()


def _print_verdicts(run: Run, paper: _Paper) -> None:
    for experiment in run.experiments:
        mark, style = ("✓", "bold green") if experiment.passed else ("✗", "bold red")
        void = sum(is_void(arm) for arm in experiment.arms)
        doubt = f" ({void} of {len(experiment.arms)} arms void)" if void else ""
        scaled = " [scaled parameters]" if is_scaled(run, experiment) else ""
        paper.print((f"{mark} ", style), (experiment.name, "bold"), (f": {experiment.verdict}{doubt}{scaled}", ""))
        for finding in experiment.findings:
            if not finding.holds:
                paper.print(("  did not hold: ", style), (f"{finding.statement} ({finding.evidence})", ""))


def _print_table(corner: str, headings: Sequence[str], lines: Sequence[Line], paper: _Paper) -> None:
    headings = [paper.plain(heading) for heading in headings]
    lines = [
        replace(line, label=paper.plain(line.label), numbers=tuple(map(paper.plain, line.numbers))) for line in lines
    ]
    widths = _column_widths(headings, lines)
    room = paper.console.width - sum(width + _GAP for width in widths)
    longest = max(cell_len(line.label) for line in lines if line.numbers or corner == "arm")
    label_width = max(_FEWEST_FOR_LABELS, min(room, longest))
    header = _set_row(corner, headings, label_width, widths)
    paper.print((header, "bold"))
    paper.print((("-" if paper.ascii else "─") * min(cell_len(header), paper.console.width), "dim"))
    for line in lines:
        for row in _set_line(line, label_width, widths):
            paper.print((row, line.style))


def _column_widths(headings: Sequence[str], lines: Sequence[Line]) -> list[int]:
    columns = zip(headings, *(line.numbers for line in lines if line.numbers), strict=True)
    return [max(map(cell_len, column)) for column in columns]


def _set_line(line: Line, label_width: int, widths: Sequence[int]) -> Iterator[str]:
    """The label beside its numbers, or above them if it is too long: a folded label is hard to read."""
    if not line.numbers:
        yield line.label
    elif cell_len(line.label) <= label_width:
        yield _set_row(line.label, line.numbers, label_width, widths)
    else:
        yield line.label
        yield _set_row("", line.numbers, label_width, widths)


def _set_row(label: str, numbers: Sequence[str], label_width: int, widths: Sequence[int]) -> str:
    cells = (" " * (width + _GAP - cell_len(number)) + number for number, width in zip(numbers, widths, strict=True))
    return set_cell_size(label, label_width) + "".join(cells)
