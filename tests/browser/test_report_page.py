"""The report in a real Chromium: its charts are drawn, nothing is fetched, nothing is complained about."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from headgate.lab.report.html import render_html

SAMPLE_RUN = Path(__file__).parents[1] / "golden" / "sample_run.py"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTEMPTS = 5
"""A headless browser may dump a page before its first frame, and without a frame nothing has come into sight."""

REQUIRED = "HEADGATE_REQUIRE_BROWSER"
"""Set where the browser has just been installed: there a skip would hide a failure."""


@pytest.fixture(params=["quick", "full"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A report on disk."""
    path = tmp_path / "report.html"
    path.write_text(render_html(runpy.run_path(str(SAMPLE_RUN))["sample_run"](request.param)), encoding="utf-8")
    return path


def open_page(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if CHROMIUM is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and no Chromium is installed")
        pytest.skip("no Chromium installed")
    return subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--v=0",
            "--run-all-compositor-stages-before-draw",  # sight is told with a frame, and headless may make none
            "--virtual-time-budget=5000",
            "--window-size=1280,30000",  # charts are drawn when they come into sight
            f"--user-data-dir={page.parent / 'profile'}",
            *arguments,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )


def test_every_chart_is_drawn_and_the_console_is_silent(page: Path) -> None:
    planned = len(re.findall(r'class="[^"]*\bplot\b', page.read_text(encoding="utf-8")))
    assert planned > 0
    for _ in range(ATTEMPTS):
        opened = open_page(page, "--dump-dom")
        assert "CONSOLE" not in opened.stderr
        drawn = len(re.findall(r"<canvas", opened.stdout))
        if drawn:
            break
    assert drawn >= planned
