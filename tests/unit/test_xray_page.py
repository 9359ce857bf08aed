"""The page of an X-ray: it loads nothing, hides nothing, and shows what JSON and text say."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import re
import runpy
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import XrayError
from headgate.names import PHASES
from headgate.xray.explain import explain
from headgate.xray.observation import NOWHERE, VERSION, Observation, Site, decode, encode
from headgate.xray.output import FORMAT, encode_report, make_report
from headgate.xray.output import VERSION as REPORT_VERSION
from headgate.xray.page.html import render_html
from headgate.xray.page.timeline import LEAST_WIDTH, mean_bar, share_of
from headgate.xray.page.views import MEANINGS, build_page
from headgate.xray.sweep import RouteSweep, SweepRow

GOLDEN = Path(__file__).parents[1] / "golden"
PAGE = GOLDEN / "xray_page.txt"
HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>&\"'{{ 7*7 }}"
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
        "knee: predicted at 201 connections, so with 400 of those tried; measured: throughput grew",
    ),
)


@cache
def sample_observation() -> Observation:
    return runpy.run_path(str(GOLDEN / "sample_xray.py"))["sample_observation"]()  # type: ignore[no-any-return]


def render(observation: Observation | None = None, sweep: tuple[RouteSweep, ...] = SWEEP) -> str:
    found = observation or sample_observation()
    return render_html(found, explain(found), sweep)


class _Reader(HTMLParser):
    """Collects elements and visible text, and fails on markup that browsers would have to repair."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag in ("tr", "p", "li", "h1", "h2", "h3", "figcaption", "caption", "section", "div", "table"):
            self.texts.append("\n")
        elif tag in ("td", "th", "dd", "span", "small", "code"):
            self.texts.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"style", "title"}.intersection(self.open):
            self.texts.append(data.replace("\n", " "))


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def visible(page: str) -> str:
    lines = (re.sub(r"\s+", " ", line).strip() for line in "".join(read(page).texts).split("\n"))
    return "\n".join(filter(None, lines)) + "\n"


def test_the_page_says_what_it_said() -> None:
    """HEADGATE_GOLDEN=write writes the file anew; look at what has changed."""
    text = visible(render())
    if os.environ.get("HEADGATE_GOLDEN") == "write":
        PAGE.write_text(text, encoding="utf-8")
    assert text == PAGE.read_text(encoding="utf-8")


def test_every_sentence_of_the_explanation_is_on_the_page_and_comes_first() -> None:
    observation = sample_observation()
    text = visible(render())
    explanation = explain(observation)
    for route in explanation.routes:
        assert route.route in text
        assert route.headline in text
        for sentence in (*route.sentences, *explanation.service):
            assert re.sub(r"\s+", " ", sentence.text.replace("/srv/shop/", "")) in text
    assert text.index("What limits it") < text.index("Where the time of a request goes")


def test_it_loads_and_runs_nothing() -> None:
    page = render()
    for tag, attributes in read(page).elements:
        assert tag not in {"script", "iframe", "object", "embed", "img", "base", "form"}
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes)
        href = attributes.get("href", "#")
        assert href.startswith("#") or href == "data:,"
    assert not re.search(r"url\(|@import", page)


def test_the_policy_allows_its_own_style_alone() -> None:
    page = render()
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [a["content"] for tag, a in read(page).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def change_strings(value: Any) -> Any:
    """Every string that comes from an app, hostile."""
    if isinstance(value, Site):
        return Site(HOSTILE, value.line, HOSTILE, HOSTILE)
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(map(change_strings, value))
    if isinstance(value, dict):
        return {f"{name}{HOSTILE}": change_strings(one) for name, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [one.name for one in dataclasses.fields(value) if one.name != "verdict"]
        return replace(value, **{name: change_strings(getattr(value, name)) for name in fields})
    return value


def test_hostile_names_stay_text() -> None:
    page = render(change_strings(sample_observation()))
    assert "<script" not in page
    assert "onerror" not in {name for _, attributes in read(page).elements for name in attributes}
    assert "{{ 7*7 }}" in page


@pytest.mark.parametrize(
    "observation", [Observation(sample_observation().process), decode(encode(sample_observation()))]
)
def test_little_and_much_can_be_shown(observation: Observation) -> None:
    assert "Headgate X-ray" in visible(render(observation, ()))


def test_bars_add_up_and_every_segment_can_be_seen() -> None:
    for route in build_page(sample_observation(), explain(sample_observation()), ()).routes:
        widths = [float(one.width.rstrip("%")) for one in route.bar]
        assert sum(widths) == pytest.approx(100, abs=LEAST_WIDTH * len(widths)) or not widths
        for request in route.requests:
            assert request.lanes
            for lane in request.lanes:
                assert all(float(one.width.rstrip("%")) >= LEAST_WIDTH for one in lane.segments)
                assert all(float(one.x.rstrip("%")) + float(one.width.rstrip("%")) <= 100.01 for one in lane.segments)


def test_of_a_routes_requests_the_slowest_the_median_and_a_typical_one_are_shown() -> None:
    page = build_page(sample_observation(), explain(sample_observation()), ())
    slow = next(route for route in page.routes if route.name == "GET /slow")
    assert [(one.title, one.total) for one in slow.requests] == [
        ("Slowest", "31.9 s"),
        ("Median and typical", "17.1 s"),
    ]


def test_every_phase_has_a_meaning_and_a_colour_in_both_schemes() -> None:
    assert tuple(MEANINGS) == PHASES
    style = sheet("headgate.xray.page", "page.css")
    for phase in PHASES:
        assert f"rect.{phase} {{" in style


def sheet(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def test_the_page_looks_like_the_labs_report() -> None:
    """What both have is the same in both, light and dark."""
    ours, theirs = (
        tokens(sheet(*one)) for one in (("headgate.xray.page", "page.css"), ("headgate.lab.report", "report.css"))
    )
    for one, other in zip(ours, theirs, strict=True):
        shared = one.keys() & other.keys()
        assert {"--ground", "--ink", "--line", "--link", "--badge"} <= shared
        assert {name: one[name] for name in shared} == {name: other[name] for name in shared}


def tokens(style: str) -> list[dict[str, str]]:
    return [
        dict(re.findall(r"(--[\w-]+): (#\w+);", block)) for block in re.findall(r":root[^{]*\{([^}]*--[^}]*)\}", style)
    ]


def test_shares_are_not_flattered() -> None:
    assert [share_of(part, 1_000_000) for part in (0, 1, 1_000, 1_000_000)] == ["0.0 %", "< 0.1 %", "0.1 %", "100.0 %"]
    assert mean_bar((0,) * len(PHASES), 0) == ()


# The same as JSON.


def report_of(observation: Observation) -> dict[str, Any]:
    return json.loads(encode_report(make_report(observation, explain(observation), SWEEP)))  # type: ignore[no-any-return]


def test_json_has_format_and_version_and_all_that_is_said() -> None:
    report = report_of(sample_observation())
    assert (report["format"], report["version"]) == (FORMAT, REPORT_VERSION)
    explanation = explain(sample_observation())
    assert [route["headline"] for route in report["routes"]] == [route.headline for route in explanation.routes]
    slow = next(route for route in report["routes"] if route["route"] == "GET /slow")
    assert sum(slow["phases"].values()) == pytest.approx(sum(sample_observation().routes[0].times_ns) / 240 / 1e9)
    assert slow["client"]["failed"] == {"timeout": 260}
    assert report["sweep"][0]["rows"][0]["connections"] == 5


def test_what_has_no_bound_is_null() -> None:
    explanation = explain(sample_observation())
    unbounded = replace(explanation.service[0], figures={"rate": float("inf")}, site=NOWHERE)
    encoded = encode_report(make_report(sample_observation(), replace(explanation, service=(unbounded,))))
    assert json.loads(encoded)["service"][0]["figures"] == {"rate": None}
    assert json.loads(encoded)["service"][0]["site"] is None


# The observation itself.


def test_an_observation_survives_being_recorded() -> None:
    assert decode(encode(sample_observation())) == sample_observation()


@pytest.mark.parametrize("text", ["", "[]", "{}", f'{{"format": "headgate-xray", "version": {VERSION}}}', "1"])
def test_what_was_not_recorded_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(XrayError, match=r"--record|written by this version"):
        decode(text)


def test_another_version_is_refused() -> None:
    later = encode(sample_observation()).replace(f'"version": {VERSION}', f'"version": {VERSION + 1}', 1)
    with pytest.raises(XrayError, match=f"version {VERSION}"):
        decode(later)
