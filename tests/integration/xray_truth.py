"""Runs an app of ``xray_apps`` under the X-ray, for one load after the other.

With ``HEADGATE_RECORD=1`` what was observed is kept beside the explanations in ``tests/golden/xray``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from sqlalchemy import URL

from headgate.hosting.service import Loop
from headgate.xray.asks import Ask
from headgate.xray.explain import Explanation, RouteReport, Sentence, explain
from headgate.xray.observation import Observation, Offer, decode, encode
from headgate.xray.probe import Probe, XrayOptions
from headgate.xray.text import format_explanation

APPS = Path(__file__).parent / "xray_apps"
GOLDEN = Path(__file__).parents[1] / "golden" / "xray"
LENGTHENED = 8 if os.environ.get("HEADGATE_SOAK") else 1
"""Loads are this many times as long as they need be."""


def get(path: str, rate: int | float) -> Ask:
    """GET a path so many times a second."""
    return Ask("GET", path, rate=Fraction(str(rate)))


@dataclass(frozen=True)
class Told:
    """What was observed of a load, and what was said of it."""

    observation: Observation
    explanation: Explanation

    def __str__(self) -> str:
        return format_explanation(self.explanation)

    def route(self, path: str) -> RouteReport:
        """What was said of a route."""
        return next(route for route in self.explanation.routes if route.route == f"GET {path}")

    def offer(self, path: str) -> Offer:
        """What the client saw of it."""
        return next(offer for offer in self.observation.offers if offer.label == f"GET {path}")

    def kinds(self, path: str) -> list[str]:
        """The kinds of what was said of a route, in order."""
        return [sentence.kind for sentence in self.route(path).sentences]

    def said(self, path: str, kind: str) -> Sentence:
        """The first sentence of a kind about a route."""
        found = [sentence for sentence in self.route(path).sentences if sentence.kind == kind]
        assert found, f"nothing of this kind ({kind}) was said of {path}:\n{self}"
        return found[0]

    @property
    def tolerance(self) -> float:
        """By how much figures of times may differ: by more where the machine had something else to do."""
        process = self.observation.process
        return 0.05 + 2 * process.kept_waiting_ns / max(1, process.wall_ns)

    def said_of_service(self, kind: str) -> list[Sentence]:
        """All of a kind about the whole service."""
        return [sentence for sentence in self.explanation.service if sentence.kind == kind]


class Patient:
    """An app under the X-ray."""

    def __init__(self, probe: Probe, options: XrayOptions) -> None:
        self._probe = probe
        self._options = options

    @property
    def pid(self) -> int:
        """The process it runs in."""
        return self._probe.pid

    def under(self, *asks: Ask, seconds: float = 1, connections: int | None = None, record: str = "") -> Told:
        """Offer a load and have it explained."""
        duration_s = Fraction(str(seconds)) * LENGTHENED
        options = replace(self._options, duration_s=duration_s, max_connections=connections)
        observation = self._probe.observe(asks, options)
        told = Told(observation, explain(observation))
        if record and os.environ.get("HEADGATE_RECORD"):
            _record(record, told)
        return told

    def warm_up(self, *paths: str) -> None:
        """Request some paths a few times, so that nothing is done for the first time afterwards."""
        options = replace(self._options, duration_s=Fraction(1, 5))
        self._probe.observe(tuple(get(path, 10) for path in paths), options)


@contextmanager
def patient(app: str, database: URL, log: Path, *, loop: Loop = "uvloop") -> Iterator[Patient]:
    """Serve an app of ``xray_apps`` by its module's name."""
    options = XrayOptions(
        timeout_s=10,
        directories=(str(APPS),),
        loop=loop,
        environment={**os.environ, "DATABASE_URL": database.render_as_string(hide_password=False)},
    )
    with Probe(f"{app}:app", options, log) as probe:
        yield Patient(probe, options)


def _record(name: str, told: Told) -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    text = encode(told.observation).replace(str(APPS), "/srv/shop")
    (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    explained = format_explanation(explain(decode(text)))
    (GOLDEN / f"{name}.txt").write_text(explained + "\n", encoding="utf-8")
