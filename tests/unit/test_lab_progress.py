"""Progress: plain lines in a log, bars on a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from headgate.lab.progress import LabProgress


def ticking_clock(*seconds: float) -> Iterator[int]:
    return iter([int(second * 1e9) for second in seconds])


def test_a_log_gets_one_line_at_the_start_and_one_at_the_end() -> None:
    file = io.StringIO()
    clock = ticking_clock(10.0, 16.94)
    with (
        LabProgress(Console(file=file, width=40), clock=lambda: next(clock)) as progress,
        progress.arm("sleep", "async, inside session [stock]", total=500) as update,
    ):
        for done in range(0, 501, 100):
            update(done)
    assert file.getvalue().splitlines() == [
        "sleep: async, inside session [stock]: started, 500 to do",
        "sleep: async, inside session [stock]: done, 500 of 500 in 6.9 s",
    ]


def test_an_arm_that_fails_ends_as_stopped_and_its_error_passes() -> None:
    file = io.StringIO()
    clock = ticking_clock(0.0, 1.5)
    progress = LabProgress(Console(file=file), clock=lambda: next(clock))

    def run_arm() -> None:
        with progress, progress.arm("ping", "x", total=9) as update:
            update(3)
            raise RuntimeError("server is gone")

    with pytest.raises(RuntimeError, match="server is gone"):
        run_arm()
    assert file.getvalue().splitlines()[-1] == "ping: x: stopped, 3 of 9 in 1.5 s"


def test_a_terminal_gets_bars() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, legacy_windows=False)
    with LabProgress(console) as progress, progress.arm("sleep", "async [stock]", total=4) as update:
        update(4)
    assert "sleep: async [stock]" in file.getvalue()
    assert "4/4" in file.getvalue()


def test_a_log_in_ascii_stays_ascii() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    clock = ticking_clock(0.0, 0.1)
    progress = LabProgress(Console(file=file), clock=lambda: next(clock))
    with progress, progress.arm("sleep", "Größe × 2", total=1) as update:
        update(1)
    file.flush()
    assert raw.getvalue().isascii()
