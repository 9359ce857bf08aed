"""The X-ray's page in a real Chromium: nothing is fetched, nothing is complained about, nothing is cut off."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from headgate.xray.explain import explain
from headgate.xray.page.html import render_html
from headgate.xray.sweep import RouteSweep, SweepRow

from .test_report_page import open_page

GOLDEN = Path(__file__).parents[1] / "golden"

SWEEP = (
    RouteSweep(
        "GET /slow",
        100.0,
        (
            SweepRow(5, 2.5, 2.4, 14.2, 90, 0.99),
            SweepRow(15, 7.5, 7.2, 12.0, 225, 0.98),
            SweepRow(400, 71, 70, 2.0, 500, 0.5),
        ),
        201,
        400,
        "knee: predicted at 201 connections, so with 400 of those tried; measured: throughput grew up to the 400 of "
        "the largest try",
    ),
)

WIDTHS = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll, svg")
    && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
  const flat = [...document.querySelectorAll(".waterfall rect, .whole rect")].filter(one => {
    const box = one.getBoundingClientRect(); return box.width <= 0 || box.height <= 0; });
  document.documentElement.dataset.wide = wide.map(one => one.className || one.tagName).join(" ");
  document.documentElement.dataset.flat = flat.length;
});</script></body>"""
"""Without the page's own policy, which runs no script."""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page on disk."""
    observation = runpy.run_path(str(GOLDEN / "sample_xray.py"))["sample_observation"]()
    path = tmp_path / "xray.html"
    path.write_text(render_html(observation, explain(observation), SWEEP), encoding="utf-8")
    return path


def test_the_console_is_silent(page: Path) -> None:
    opened = open_page(page, "--dump-dom")
    assert "CONSOLE" not in opened.stderr
    assert "What limits it" in opened.stdout


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window_and_every_bar_can_be_seen(page: Path, width: int) -> None:
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r'<meta http-equiv="Content[^>]*>', "", text).replace("</body>", WIDTHS), encoding="utf-8")
    # A window of a headless browser is at least 500 wide; a frame may be narrower.
    frame = page.with_name("frame.html")
    inner = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(
        f'<!doctype html><iframe width="{width}" height="900" srcdoc="{inner}"></iframe>'
        '<script>addEventListener("load", () => { const found = document.querySelector("iframe").contentDocument;'
        " Object.assign(document.documentElement.dataset, found.documentElement.dataset); })</script>",
        encoding="utf-8",
    )
    opened = open_page(frame, "--dump-dom")
    [html] = re.findall(r"<html[^>]*>", opened.stdout)[:1]
    assert 'data-wide=""' in html
    assert 'data-flat="0"' in html


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_drawn_in_both_schemes(page: Path, scheme: str) -> None:
    shot = page.with_name(f"{scheme}.png")
    blink = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    open_page(page, f"--screenshot={shot}", "--window-size=1280,2400", *blink)
    assert shot.stat().st_size > 20_000
