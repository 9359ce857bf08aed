"""The explanation as one HTML page that needs no network, no server, no script and no other file."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headgate.xray.explain import Explanation
from headgate.xray.observation import Observation
from headgate.xray.page.views import build_page
from headgate.xray.sweep import RouteSweep

_PACKAGE = "headgate.xray.page"


def render_html(observation: Observation, explanation: Explanation, sweep: tuple[RouteSweep, ...] = ()) -> str:
    """The whole page; its content security policy forbids it to load or run anything."""
    style = _style()
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(page=build_page(observation, explanation, sweep), policy=_content_policy(style), style=Markup(style))
    )


@cache
def _style() -> str:
    return files(_PACKAGE).joinpath("page.css").read_text(encoding="utf-8")


def _content_policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = ("default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:", "base-uri 'none'")
    return "; ".join((*rules, "form-action 'none'"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(_PACKAGE, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
