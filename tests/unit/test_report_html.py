"""The HTML report: it loads nothing, hides nothing, and takes nothing from a run at its word."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import runpy
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from headgate.lab.report.html import render_html
from headgate.lab.results import Check, Distribution, Figure, Published, Run

_GOLDEN = Path(__file__).parents[1] / "golden"
_HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'\u2028{{ 7*7 }}"
_BLOCKS = {"small", "td", "th"}
_VOID_ELEMENTS = {"meta", "link", "input", "br", "wbr", "img"}


@cache
def sample_run(mode: str) -> Run:
    return runpy.run_path(str(_GOLDEN / "sample_run.py"))["sample_run"](mode)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.pieces)).strip()

    def find(self, tag: str, **attributes: str) -> list[Element]:
        wanted = {name.replace("_", "-").rstrip("-"): value for name, value in attributes.items()}
        found = [self] if self.tag == tag and wanted.items() <= self.attributes.items() else []
        return found + [match for child in self.children for match in child.find(tag, **attributes)]

    def walk(self) -> list[Element]:
        return [self] + [below for child in self.children for below in child.walk()]


class _Reader(HTMLParser):
    """Builds a tree and fails on markup that browsers would have to repair."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag in _BLOCKS:
            self.handle_data(" ")
        if tag not in _VOID_ELEMENTS:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.pieces.append(data)


def parse(page: str) -> Element:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, [element.tag for element in reader.open]
    return reader.root


@cache
def page_of(mode: str) -> Element:
    return parse(render_html(sample_run(mode)))


def change_arm(run: Run, experiment: int, arm: int, **changes: object) -> Run:
    old = run.experiments[experiment]
    arms = list(old.arms)
    arms[arm] = replace(arms[arm], **changes)
    experiments = list(run.experiments)
    experiments[experiment] = replace(old, arms=tuple(arms))
    return replace(run, experiments=tuple(experiments))


def arm_row(page: Element, title: str) -> Element:
    """The table body of the one arm whose title begins so."""
    bodies = [body for table in page.find("table", class_="arms") for body in table.find("tbody")]
    [found] = [body for body in bodies if body.find("span", class_="arm-title")[0].text.startswith(title)]
    return found


def test_loads_nothing() -> None:
    for element in page_of("full").walk():
        assert "src" not in element.attributes, element
        href = element.attributes.get("href", "#")
        assert href.startswith("#") or href == "data:,", href
        assert element.tag not in {"iframe", "object", "embed", "img", "base", "form"}
        assert not any(name.startswith("on") or name == "style" for name in element.attributes), element


def test_style_sheets_load_nothing() -> None:
    for style in page_of("full").find("style"):
        assert not re.search(r"url\(|@import", "".join(style.pieces))


def test_policy_allows_only_the_scripts_and_styles_on_the_page() -> None:
    page = page_of("full")
    [meta] = page.find("meta", http_equiv="Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in meta.attributes["content"].split(";"))
    scripts = [script for script in page.find("script") if "type" not in script.attributes]
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [hash_of(script) for script in scripts]
    assert rules["style-src"].split() == [hash_of(style) for style in page.find("style")]
    assert rules["img-src"] == "data:"


def hash_of(element: Element) -> str:
    digest = hashlib.sha256("".join(element.pieces).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_every_percentile_has_its_count(mode: str) -> None:
    cells = [cell for cell in page_of(mode).find("td") if "data-percentile" in cell.attributes]
    assert len(cells) > 100
    for cell in cells:
        [count] = cell.find("small", class_="count")
        assert re.fullmatch(r"n [\d,]+", count.text), cell.text


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_percentiles_stand_only_in_cells_that_say_so(mode: str) -> None:
    for table in page_of(mode).find("table"):
        headings = [heading.text for heading in table.find("thead")[0].find("th")]
        columns = [heading for heading in headings if heading in {"p50", "p90", "p95", "p99"}]
        rows = [row for row in table.find("tr") if row.find("td")]
        for row in rows if columns else []:
            named = [cell.attributes.get("data-percentile") for cell in row.find("td")]
            assert [name for name in named if name in columns] == columns


def test_a_figure_that_is_a_percentile_admits_that_its_count_is_missing() -> None:
    run = change_arm(sample_run("full"), 1, 0, figures=(Figure("ping p99", 0.2, "s"),))
    assert "ping p99 (sample count not recorded)" in parse(render_html(run)).text


@pytest.mark.parametrize("tag", ["table", "figure"])
def test_every_table_and_chart_bears_the_quick_badge(tag: str) -> None:
    holder = {"table": "caption", "figure": "figcaption"}[tag]
    elements = page_of("quick").find(tag)
    assert len(elements) >= 10
    for element in elements:
        [caption] = element.find(holder)
        assert "quick: scaled parameters" in caption.text, caption.text


def test_a_full_run_bears_no_badge() -> None:
    assert not page_of("full").find("span", class_="badge")
    assert not page_of("full").find("p", class_="strip")


def test_a_scaled_experiment_is_marked_even_in_a_full_run() -> None:
    run = sample_run("full")
    first, second, _ = run.experiments
    page = parse(render_html(replace(run, experiments=(first, replace(second, scaled=True)))))
    scaled, plain = page.find("section", id="experiment-1")[0], page.find("section", id="experiment-0")[0]
    assert all("scaled parameters" in caption.text for caption in scaled.find("caption"))
    assert not plain.find("span", class_="badge")


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_every_chart_says_what_was_offered_and_achieved(mode: str) -> None:
    for figure in page_of(mode).find("figure"):
        assert re.search(r"offered (at once|[\d.,]+/s), achieved [\d.,]+/s", figure.text), figure.text
        [plot] = [box for box in figure.find("div", role="img") if "data-chart" in box.attributes]
        assert len(plot.attributes["aria-label"]) > 60


def test_published_stands_beside_measured() -> None:
    row = arm_row(page_of("full"), "sync, sleep outside the session")
    assert "published 19.03/s −0.2 %" in row.text
    assert "published 11.6 s +" in row.text
    assert "published 100 % ±0.0 %" in row.text


def test_a_path_finds_its_own_published_figure() -> None:
    row = arm_row(page_of("full"), "async count, client limited to 100 connections")
    counts, pings = row.find("tr")
    assert "published 12.18 s" in counts.text
    assert "published 12.4 s" in pings.text


def test_scaled_figures_are_not_compared() -> None:
    page = page_of("quick")
    row = arm_row(page, "sync, sleep outside the session")
    assert "published 19.03/s" in row.text
    assert not [published for published in page.find("small", class_="published") if published.find("b")]


def test_a_published_figure_without_a_counterpart_is_still_shown() -> None:
    published = Published("somewhere", (Figure("apdex", 0.93, ""),))
    page = parse(render_html(change_arm(sample_run("full"), 1, 0, published=published)))
    [table] = [table for table in page.find("table", class_="others") if "apdex" in table.text]
    [row] = [row for row in table.find("tr") if "apdex" in row.text]
    assert "published 0.93" in row.text


def test_prediction_stands_beside_measured() -> None:
    row = arm_row(page_of("full"), "sync, sleep outside the session")
    assert "20.00/s 40 threads ÷ 2 s measured −5.0 %" in row.text


def test_failed_checks_come_first() -> None:
    page = page_of("full")
    assert page.find("h2")[0].text == "Why a result may not be believed"
    [table] = page.find("table", class_="doubts")
    assert "3 failed of 72 checks" in table.text
    assert "p99 12.1 ms, wanted at most 5 ms" in table.text


def test_a_void_arm_is_shown_struck_through_with_its_reason() -> None:
    row = arm_row(page_of("full"), "async count, NullPool")
    assert "void" in row.attributes["class"].split()
    assert "93 %, wanted at most 80 %" in row.text
    assert not row.find("span", class_="number")[1:], "only the prediction stays"
    assert len(row.find("s")) == 2 * 7


def test_a_void_arm_is_never_decisive() -> None:
    failed = (Check("lateness", False, "late"),)
    page = parse(render_html(change_arm(sample_run("full"), 1, 4, checks=failed)))
    decisive = page.find("table", class_="decisive")
    assert "leased session" not in decisive[1].text


def test_a_void_point_is_struck_through_and_its_arm_is_not() -> None:
    page = page_of("quick")
    table = page.find("table", class_="arms points")[0]
    stock = table.find("tbody")[0]
    assert "void" not in stock.attributes["class"].split()
    twice, tenfold = stock.find("tr")
    assert not twice.find("s")
    assert len(tenfold.find("s")) == 10
    assert tenfold.find("span", class_="void-tag")


def test_every_load_says_what_was_offered_achieved_and_used_up() -> None:
    rows = [
        row
        for table in page_of("full").find("table", class_="arms points")
        for row in table.find("tr")
        if row.find("td")
    ]
    assert len(rows) == 20
    for row in rows:
        assert re.search(r"offered [\d.,]+/s\s*achieved [\d.,]+/s", row.text), row.text
        assert re.search(r"(no processor|core)\s*service [\d.]+ %, server [\d.]+ %, generator", row.text), row.text


def test_arms_under_several_loads_have_no_row_among_those_under_one() -> None:
    [section] = page_of("full").find("section", id="experiment-2")
    [table] = section.find("table", class_="arms")
    assert [title.text for title in table.find("span", class_="arm-title")] == ["defaults: 10× for 20 s, then 0.5×"]


def test_an_interrupted_run_says_so_first() -> None:
    page = parse(render_html(replace(sample_run("full"), complete=False)))
    [table] = page.find("table", class_="doubts")
    assert "whole run" in table.find("tbody")[0].find("tr")[0].text


def test_arms_without_checks_are_not_passed_off_as_checked() -> None:
    page = parse(render_html(change_arm(sample_run("full"), 1, 4, checks=())))
    assert "1 arm was not checked" in page.text


def test_answers_alone_are_shown_where_requests_failed() -> None:
    row = arm_row(page_of("full"), "async, sleep inside the session")
    [median] = [cell for cell in row.find("td") if cell.attributes.get("data-percentile") == "p50"]
    assert re.match(r"30\.0 s n 500 answered 1\d\.\d s, n 2\d\d published 30 s ±0\.0 %$", median.text)


def test_a_p99_of_few_samples_says_so() -> None:
    row = arm_row(page_of("quick"), "sync, sleep outside the session")
    [cell] = [cell for cell in row.find("td") if cell.attributes.get("data-percentile") == "p99"]
    assert "n 50 fewer than 100: the slowest" in cell.text


def test_nothing_of_a_run_becomes_markup() -> None:
    run = poison(sample_run("quick"))
    raw = render_html(run)
    page = parse(raw)
    assert "<img" not in raw
    assert "alert(1)</script>" not in raw
    assert len(page.find("script")) == 3
    assert page.find("section", id="experiment-0")[0].find("h2")[0].text.startswith("</script><script>alert(1)")
    assert "{{ 7*7 }}" in page.text


def poison(run: Run) -> Run:
    def poison_value(value: object) -> object:
        if isinstance(value, str) and value not in {"quick", "stock", "headgate"}:
            return _HOSTILE
        if isinstance(value, tuple) and not (value and isinstance(value[0], (int, float))):
            return tuple(poison_value(item) for item in value)
        if isinstance(value, dict):
            return {f"{_HOSTILE}{key}": poison_value(item) for key, item in value.items()}
        if hasattr(value, "__dataclass_fields__"):
            fields = value.__dataclass_fields__
            return replace(value, **{name: poison_value(getattr(value, name)) for name in fields})  # type: ignore[type-var]
        return value

    return poison_value(run)  # type: ignore[return-value]


def test_tables_are_tables() -> None:
    for table in page_of("full").find("table"):
        assert table.find("caption")
        for heading in table.find("th"):
            assert heading.attributes["scope"] in {"col", "row", "rowgroup"}
        assert all(row.find("th") or row.find("td") for row in table.find("tr"))


def test_curves_can_be_switched_off_with_labelled_boxes() -> None:
    boxes = [box for box in page_of("full").walk() if "data-curve" in box.attributes]
    labels = [label for label in page_of("full").find("label") if label.find("input")]
    assert len(boxes) == len(labels) > 10
    assert all(label.text for label in labels)


def test_identifiers_are_unique() -> None:
    names = [element.attributes["id"] for element in page_of("full").walk() if "id" in element.attributes]
    assert len(names) == len(set(names))
    targets = {link.attributes["href"][1:] for link in page_of("full").find("a")}
    assert targets <= set(names)


def test_a_run_with_nothing_in_it_renders() -> None:
    empty = replace(sample_run("full"), experiments=())
    assert "No experiment was run" in parse(render_html(empty)).text


def test_an_arm_without_requests_renders() -> None:
    nothing = Distribution(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    run = sample_run("full")
    silent = replace(
        run.experiments[1].arms[0].paths[0],
        requests=0,
        successes=0,
        success_ratio=0.0,
        latency=nothing,
        latency_success=nothing,
        points=(),
        timeline=(),
    )
    page = parse(render_html(change_arm(change_arm(run, 1, 0, paths=(silent,)), 1, 1, paths=())))
    assert "nothing offered" in arm_row(page, "sync, sleep outside the session").text
    assert "no requests" in arm_row(page, "sync, sleep inside the session").text


def test_a_large_run_stays_small() -> None:
    run = sample_run("full")
    sleep = run.experiments[1]
    many = replace(sleep, arms=sleep.arms * 3)
    page = render_html(replace(run, experiments=(run.experiments[0], many)))
    assert len(page.encode()) < 1_000_000


def test_chart_data_is_json_that_holds_no_markup() -> None:
    [data] = page_of("full").find("script", id="report-data")
    text = "".join(data.pieces)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert len(json.loads(text)) == 3


def test_vendored_files_are_what_their_list_says() -> None:
    assets = files("headgate.lab.report") / "assets"
    listed = re.findall(r"^(\S+)\s+\S+\s+([0-9a-f]{64})$", (assets / "VERSIONS").read_text(), re.MULTILINE)
    present = {entry.name for entry in assets.iterdir()} - {"VERSIONS"}
    assert {name for name, _ in listed} == present
    for name, digest in listed:
        assert hashlib.sha256((assets / name).read_bytes()).hexdigest() == digest
