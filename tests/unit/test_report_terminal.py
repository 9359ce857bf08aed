"""The report for the terminal, against golden text and on poor terminals.

``HEADGATE_UPDATE_GOLDEN=1 pytest tests/unit/test_report_terminal.py`` writes the golden files anew.
"""

from __future__ import annotations

import io
import os
import re
import runpy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from headgate.lab.report.terminal import print_run
from headgate.lab.results import Run

_GOLDEN = Path(__file__).parents[1] / "golden"


@cache
def sample_run(mode: str) -> Run:
    return runpy.run_path(str(_GOLDEN / "sample_run.py"))["sample_run"](mode)


def printed(run: Run, *, width: int, encoding: str = "utf-8", colour: bool = False) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    print_run(
        run,
        Console(file=file, width=width, force_terminal=colour, color_system="standard" if colour else None),
    )
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("mode", "width", "encoding"), [("full", 100, "utf-8"), ("quick", 100, "utf-8"), ("quick", 80, "ascii")]
)
def test_golden(mode: str, width: int, encoding: str) -> None:
    path = _GOLDEN / f"terminal_{mode}_{width}_{encoding}.txt"
    text = printed(sample_run(mode), width=width, encoding=encoding)
    if os.environ.get("HEADGATE_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", ["quick", "full"])
@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_fits_its_width(mode: str, width: int, encoding: str) -> None:
    lines = printed(sample_run(mode), width=width, encoding=encoding).splitlines()
    assert max(map(len, lines)) <= width


def test_failing_checks_come_first_and_verdicts_last() -> None:
    lines = printed(sample_run("full"), width=100).splitlines()
    assert lines[0] == "Why a result may not be believed: 3 failed checks"
    assert [line[:8] for line in lines[-5:-1]] == ["✗ ping: ", "  did no", "✓ sleep:", "✗ overlo"]


def test_quick_marks_every_measured_column_and_explains_the_mark() -> None:
    text = printed(sample_run("quick"), width=120)
    headings = [line.split() for line in text.splitlines() if line.startswith("arm ")]
    assert len(headings) == 3
    for _, *names in headings:
        unmarked = [name for name in names if not name.endswith("≈") and name not in {"published", "idle"}]
        assert unmarked == []
    assert text.count("≈: scaled down by --quick") == 4
    assert " ".join(text.split()).count("[scaled parameters]") == 3


@pytest.mark.parametrize(("width", "columns"), [(120, 11), (100, 8), (80, 8)])
def test_loads_have_offered_and_sent_rates_beside_their_goodput(width: int, columns: int) -> None:
    lines = printed(sample_run("quick"), width=width).splitlines()
    headings = [line for line in lines if line.startswith("load ")]
    assert len(headings) == 2, "one table a kind of work"
    assert all(len(re.findall("≈", heading)) == columns for heading in headings)
    assert all({"offered≈", "sent≈", "good≈", "n≈"} <= set(heading.split()) for heading in headings)


def test_the_runs_of_a_load_are_one_line_and_a_void_one_does_not_count() -> None:
    lines = printed(sample_run("full"), width=120).splitlines()
    assert sum(line.startswith("  10× ") for line in lines) == 5
    assert not any(line.startswith("  10× ") and "(" in line for line in lines), "two runs of that load are valid"
    assert any(
        line.startswith("  10× ") and "(" in line for line in printed(sample_run("quick"), width=120).splitlines()
    )


def test_a_full_run_bears_no_mark() -> None:
    text = printed(sample_run("full"), width=120)
    assert "≈" not in text
    assert "scaled" not in text


def test_void_figures_are_bracketed() -> None:
    lines = printed(sample_run("full"), width=100).splitlines()
    start = next(index for index, line in enumerate(lines) if "(void)" in line)
    for line in lines[start + 1 : start + 3]:
        numbers = line.split("  ")
        assert all(number.strip().startswith("(") for number in numbers[2:] if number.strip())


def test_plain_output_has_no_escapes_and_colour_output_has() -> None:
    assert "\x1b" not in printed(sample_run("full"), width=100)
    assert "\x1b[" in printed(sample_run("full"), width=100, colour=True)


def test_nothing_of_a_run_reaches_the_terminal_as_control() -> None:
    run = sample_run("full")
    hostile = "\x1b]0;owned\x07[bold]x[/bold]\rgone"
    experiment = replace(run.experiments[1], question=hostile, verdict=hostile)
    text = printed(replace(run, experiments=(experiment,)), width=100)
    assert not set(text) & set("\x1b\x07\r")
    assert "[bold]x[/bold]" in text


def test_ascii_keeps_the_meaning_of_its_signs() -> None:
    text = printed(sample_run("full"), width=100, encoding="ascii")
    assert "19.03 -0.2 %" in text
    assert "->" in text
    assert "?" not in text.replace("database?", "").replace("cost?", "").replace("capacity?", "")


def test_an_interrupted_run_says_so_first() -> None:
    text = printed(replace(sample_run("full"), complete=False), width=100)
    assert "whole run: complete:" in text.splitlines()[1]


def test_a_run_without_experiments_prints() -> None:
    assert "No check failed" in printed(replace(sample_run("full"), experiments=()), width=80)
