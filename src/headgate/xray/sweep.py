"""The same load with pools of several sizes: what was answered, beside what the ceilings predict. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headgate.ceilings import offered
from headgate.names import GATE_WAIT, THREAD_WAIT
from headgate.xray.explain import rate, seconds
from headgate.xray.observation import Observation, Offer, RouteSum

NEARLY = 0.95
"""Of the best throughput: from where it is reached, more connections bring nothing."""


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One route with one size of the pool.

    :ivar connections: of each pool.
    :ivar predicted: answers per second that the ceilings allow, worked out from the run with the smallest pool.
    :ivar measured: answers per second.
    :ivar latency_s: median of the answered, for the client.
    :ivar used: share of the connections in use, over all routes.
    """

    connections: int
    predicted: float
    measured: float
    latency_s: float
    answered: int
    used: float


@dataclass(frozen=True, slots=True)
class RouteSweep:
    """One route over all sizes.

    :ivar predicted_knee: connections from which on, by the ceilings, more of them bring nothing.
    :ivar measured_knee: the smallest size whose throughput was nearly the best.
    """

    route: str
    offered: float
    rows: tuple[SweepRow, ...]
    predicted_knee: int
    measured_knee: int
    text: str


def compare_sizes(observations: Mapping[int, Observation]) -> tuple[RouteSweep, ...]:
    """Route by route, those alone that need connections and were asked for by the client."""
    basis = observations[min(observations)]
    demand = _Demand(basis)
    return tuple(
        _route(observations, demand, offer, route)
        for offer in basis.offers
        for route in basis.routes
        if route.route == offer.route and route.holders
    )


class _Demand:
    """How much of each resource the whole load would use, were it all answered, from what one request used."""

    def __init__(self, observation: Observation) -> None:
        routes = {route.route: route for route in observation.routes}
        wanted = [(one.rate, routes[one.route]) for one in observation.offers if one.route in routes]
        process = observation.process
        requests = max(1, sum(route.count for route in observation.routes))
        pools = {pool for _, route in wanted for pool in route.holders}
        self.connections = max((sum(each * _hold_s(r, pool) for each, r in wanted) for pool in pools), default=0.0)
        self.threads = sum(each * _run_s(route) for each, route in wanted) / max(1, process.threads)
        self.core = sum(each for each, _ in wanted) * process.cpu_ns / requests / 1e9

    @property
    def without_connections(self) -> float:
        """The share of the load that everything but connections allows."""
        return min(1.0, *(1 / used for used in (self.threads, self.core) if used > 0), 1.0)

    def share(self, connections: int) -> float:
        """The share of the load that can be answered with so many."""
        return min(self.without_connections, connections / self.connections if self.connections else 1.0)


def _hold_s(route: RouteSum, pool: str) -> float:
    return sum(hold.held_ns for hold in route.holds if hold.pool == pool) / max(1, route.holders.get(pool, 0)) / 1e9


def _run_s(route: RouteSum) -> float:
    waits_ns = min(route.times_ns[GATE_WAIT], route.thread_run_ns)
    return (route.thread_run_ns - waits_ns) / max(1, route.count) / 1e9


def _route(observations: Mapping[int, Observation], demand: _Demand, offer: Offer, route: RouteSum) -> RouteSweep:
    rows = tuple(_row(observation, size, demand, offer, route) for size, observation in sorted(observations.items()))
    best = max(row.measured for row in rows)
    measured = next(row.connections for row in rows if row.measured >= NEARLY * best)
    predicted = max(1, math.ceil(demand.connections * demand.without_connections))
    return RouteSweep(route.route, offer.rate, rows, predicted, measured, _text(rows, predicted, measured))


def _row(observation: Observation, size: int, demand: _Demand, offer: Offer, route: RouteSum) -> SweepRow:
    found = next((one for one in observation.offers if one.route == route.route), None)
    held_ns = sum(hold.held_ns for one in observation.routes for hold in one.holds)
    pools = max(1, sum(pool.limit is not None for pool in observation.pools))
    return SweepRow(
        connections=size,
        predicted=_predicted(demand.share(size), offer, route),
        measured=0.0 if found is None else found.throughput,
        latency_s=0.0 if found is None else found.latency_ns / 1e9,
        answered=0 if found is None else found.answered,
        used=held_ns / max(1, size * pools * observation.process.wall_ns),
    )


def _predicted(share: float, offer: Offer, route: RouteSum) -> float:
    """What is answered of a load that ends: its last request is answered after all others."""
    waits_ns = route.times_ns[GATE_WAIT] + route.times_ns[THREAD_WAIT]
    alone_s = max(0, sum(route.times_ns) - waits_ns) / max(1, route.count) / 1e9
    allowed = offered(offer.sent, offer.sent / offer.rate, alone_s).throughput if offer.rate else 0.0
    return min(share * offer.rate, allowed)


def _text(rows: tuple[SweepRow, ...], predicted: int, measured: int) -> str:
    sizes = [row.connections for row in rows]
    enough = next((size for size in sizes if size >= predicted), None)
    of_these = f", so with {enough} of those tried" if enough is not None else f", more than the {sizes[-1]} tried"
    if measured == sizes[0]:
        seen = f"the {sizes[0]} of the smallest try were enough already"
    elif measured == sizes[-1]:
        seen = f"throughput grew up to the {measured} of the largest try"
    else:
        seen = f"with more than {measured} it did not grow any more"
    return f"knee: predicted at {predicted} connections{of_these}; measured: {seen}"


def format_sweep(sweep: tuple[RouteSweep, ...]) -> str:
    """A table for each route."""
    return "\n\n".join("\n".join(_table(one)) for one in sweep)


def _table(sweep: RouteSweep) -> list[str]:
    head = ("connections", "predicted", "measured", "p50", "answered", "used")
    rows = [
        (
            str(row.connections),
            f"{rate(row.predicted)}/s",
            f"{rate(row.measured)}/s",
            seconds(row.latency_s) if row.answered else "–",
            f"{row.answered:,}",
            f"{row.used:.0%}",
        )
        for row in sweep.rows
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    title = f"{sweep.route}   offered {rate(sweep.offered)}/s"
    return [title, *(f"  {line}" for line in lines), f"  {sweep.text}"]
