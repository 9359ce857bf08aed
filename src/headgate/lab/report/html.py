"""The report as one HTML page that needs no network, no server and no other file."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from headgate.lab.report import words
from headgate.lab.report.charts import chart_data, encode_json
from headgate.lab.report.page import build_page
from headgate.lab.results import Run

_PACKAGE = "headgate.lab.report"
_STYLES = ("assets/uPlot.min.css", "report.css")
_SCRIPTS = ("assets/uPlot.iife.min.js", "report.js")
_CHART_LICENCE = "assets/LICENSE-uPlot.txt"


def render_html(run: Run) -> str:
    """The whole report as one page; its content security policy forbids it to load anything.

    Only the page's own scripts and styles run, each named by its hash.
    """
    styles = [_read_asset(name) for name in _STYLES]
    scripts = [_read_asset(name) for name in _SCRIPTS]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            page=build_page(run),
            policy=_content_policy(styles, scripts),
            styles=[Markup(style) for style in styles],
            scripts=[Markup(script) for script in scripts],
            data=Markup(encode_json(chart_data(run))),
            chart_licence=_read_asset(_CHART_LICENCE),
        )
    )


@cache
def _read_asset(name: str) -> str:
    return files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _content_policy(styles: list[str], scripts: list[str]) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash_source, scripts))}",
            f"style-src {' '.join(map(_hash_source, styles))}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash_source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["zip"] = zip
    environment.filters.update(
        seconds=words.format_seconds,
        span=words.format_span,
        rate=words.format_rate,
        pace=words.format_pace,
        share=words.format_share,
        parameter=words.format_parameter,
        bytes=words.format_bytes,
        breakable=_breakable,
    )
    return environment


def _breakable(path: str) -> Markup:
    """A long path with places where a narrow column may break it."""
    escaped = str(escape(path))
    return Markup(escaped.replace("/", "/<wbr>").replace("_", "_<wbr>").replace("-", "-<wbr>"))
