"""An explanation as JSON: format and version, then what is said and the figures it speaks of."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headgate.names import PHASES
from headgate.xray.explain import Explanation, RouteReport, Sentence
from headgate.xray.observation import Observation, Offer, RouteSum, Site
from headgate.xray.sweep import RouteSweep

FORMAT: Final = "headgate-xray-explanation"
VERSION: Final = 1
"""1: first form. Raise it with every change of a field or its meaning."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of ``count`` requests in the service, in seconds; nearest rank."""

    count: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """One route.

    :ivar requests: that were added up, ``unfinished`` ones included.
    :ivar phases: seconds of each phase, a request on average.
    :ivar latency: None where no request began.
    :ivar client: what the client saw; None where it did not ask.
    """

    route: str
    headline: str
    requests: int
    unfinished: int
    phases: dict[str, float]
    latency: Latency | None
    client: ClientFigures | None
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class ClientFigures:
    """What was asked and answered, per second where it is a rate; ``failed`` counts by word."""

    sent: int
    answered: int
    failed: dict[str, int]
    rate: float
    throughput: float
    p50: float
    connections: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole of it."""

    format: str
    version: int
    about: dict[str, str]
    routes: tuple[RouteFigures, ...]
    service: tuple[Sentence, ...]
    sweep: tuple[RouteSweep, ...]


def make_report(observation: Observation, explanation: Explanation, sweep: tuple[RouteSweep, ...] = ()) -> Report:
    """All that JSON and page show."""
    sums = {route.route: route for route in observation.routes}
    offers = {offer.route: offer for offer in observation.offers}
    return Report(
        format=FORMAT,
        version=VERSION,
        about=dict(observation.about),
        routes=tuple(_route(one, sums.get(one.route), offers.get(one.route)) for one in explanation.routes),
        service=explanation.service,
        sweep=sweep,
    )


def encode_report(report: Report) -> str:
    """As one JSON object; what has no bound is null."""
    return json.dumps(_plain(report), ensure_ascii=False, allow_nan=False)


def _route(report: RouteReport, route: RouteSum | None, offer: Offer | None) -> RouteFigures:
    count = 0 if route is None else route.count
    times_ns = (0,) * len(PHASES) if route is None else route.times_ns
    return RouteFigures(
        route=report.route,
        headline=report.headline,
        requests=count,
        unfinished=0 if route is None else route.unfinished,
        phases={phase: time_ns / max(1, count) / 1e9 for phase, time_ns in zip(PHASES, times_ns, strict=True)},
        latency=None if route is None else latency_of(route),
        client=None if offer is None else _client(offer),
        sentences=report.sentences,
    )


def latency_of(route: RouteSum) -> Latency | None:
    """Of the sample of requests that is kept; None of none."""
    values = route.latencies_ns
    if not values:
        return None
    p50, p99 = (values[max(0, -(-percent * len(values) // 100) - 1)] / 1e9 for percent in (50, 99))
    return Latency(len(values), p50, p99, values[-1] / 1e9)


def _client(offer: Offer) -> ClientFigures:
    return ClientFigures(
        sent=offer.sent,
        answered=offer.answered,
        failed=dict(offer.failed),
        rate=offer.rate,
        throughput=offer.throughput,
        p50=offer.latency_ns / 1e9,
        connections=offer.connections,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Site):
        return value._asdict() if value.file else None
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    return None if isinstance(value, float) and not math.isfinite(value) else value
