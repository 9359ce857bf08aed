"""An explanation as people read it in a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from headgate.xray.explain import Explanation, RouteReport, Sentence


def format_explanation(explanation: Explanation) -> str:
    """Route by route, then what concerns the whole service."""
    here = f"{Path.cwd()}{os.sep}"
    lines = [line for route in explanation.routes for line in (*_route(route), "")]
    lines += [f"{sentence.kind}: {sentence.text}" for sentence in explanation.service]
    return "\n".join(lines).replace(here, "").rstrip()


def _route(route: RouteReport) -> Iterator[str]:
    yield f"{route.route}   {route.headline}"
    remedies = 0
    for sentence in route.sentences:
        remedies += sentence.kind == "remedy"
        yield f"  {_line(sentence, remedies)}"


def _line(sentence: Sentence, remedies: int) -> str:
    return f"remedy {remedies}: {sentence.text}" if sentence.kind == "remedy" else sentence.text
