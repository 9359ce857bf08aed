"""Prometheus: read from the running sums when it is scraped, so that a request pays for no metric."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headgate.names import PHASES
from headgate.tallies import WAIT_BOUNDS_NS, GateStatistics
from headgate.xray.figures import Figures
from headgate.xray.pools import PoolNow, gates_of
from headgate.xray.sums import CLASSES, Counts, PoolFigures, RouteFigures

log = logging.getLogger("headgate.xray")

SEVERAL_PROCESSES: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus_client is told to add up several processes."""

BOUNDS: Final = (*(f"{bound_ns / 1e9:g}" for bound_ns in WAIT_BOUNDS_NS), "+Inf")

Families = Iterator[Metric]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Give it to ``Production(exports=…)``; serve the registry with ``prometheus_client.make_asgi_app()``.

    :ivar registry: by default prometheus_client's own.
    """

    registry: CollectorRegistry = field(default=REGISTRY)

    def start(self, figures: Figures) -> None:
        """Register a collector."""
        if os.environ.get(SEVERAL_PROCESSES):
            log.warning(
                "%s is set, and prometheus_client adds up no collectors of others: Headgate's metrics are left out of "
                "what all processes answer together; see docs/xray.md",
                SEVERAL_PROCESSES,
            )
        self.registry.register(FiguresCollector(figures))


class FiguresCollector(Collector):
    """Every metric is made anew at every scrape."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """All of them; counters are since the process has begun to watch."""
        figures = self._figures
        pools, uses, routes = figures.pools(), figures.uses(), figures.routes()
        yield from _of_requests(routes, in_flight=len(figures.requests()))
        yield from _of_pools(pools)
        yield from _of_connections(pools, uses)
        yield from _of_gates(gates_of(pools))
        yield from _of_stalls(figures)


def _of_requests(routes: list[RouteFigures], in_flight: int) -> Families:
    yield GaugeMetricFamily("headgate_requests_in_flight", "Requests that have not ended.", value=in_flight)
    count = CounterMetricFamily("headgate_requests", "Requests that have ended.", labels=("route", "status"))
    phases = CounterMetricFamily(
        "headgate_phase_seconds", "Time of requests until their answer, by phase.", labels=("route", "phase")
    )
    for route in routes:
        for status, number in zip(CLASSES, route.statuses, strict=True):
            if number:
                count.add_metric((route.route, status), number)
        for phase, time_ns in zip(PHASES, route.times_ns, strict=True):
            phases.add_metric((route.route, phase), time_ns / 1e9)
    yield count
    yield phases


def _of_pools(pools: list[PoolNow]) -> Families:
    limit = GaugeMetricFamily("headgate_connections_limit", "Connections at most.", labels=("pool",))
    now = GaugeMetricFamily("headgate_connections", "Open connections, by state.", labels=("pool", "state"))
    pending = GaugeMetricFamily("headgate_pending", "Who waits for a connection.", labels=("pool",))
    timeouts = CounterMetricFamily("headgate_timeouts", "Waits for a connection that were in vain.", labels=("pool",))
    for pool in pools:
        if pool.limit is not None:
            limit.add_metric((pool.label,), pool.limit)
        for state, number in _states(pool):
            now.add_metric((pool.label, state), number)
        pending.add_metric((pool.label,), pool.pending)
        timeouts.add_metric((pool.label,), pool.timeouts)
    yield from (limit, now, pending, timeouts)


def _states(pool: PoolNow) -> Iterator[tuple[str, int]]:
    yield "in_use", pool.in_use
    if pool.gate is None:
        yield "idle", pool.idle
    else:
        yield "warm", pool.gate.warm
        yield "idle", pool.gate.idle


def _of_connections(pools: list[PoolNow], uses: list[PoolFigures]) -> Families:
    """Waits of leases are the gate's own, to the nanosecond; of other pools they are what was seen of them."""
    gates = dict(gates_of(pools))
    waits = {one.label: one.waits for one in uses if one.label not in gates}
    waits |= {label: Counts(gate.waits, gate.wait_time_ns) for label, gate in gates.items()}
    yield _histogram("headgate_wait_seconds", "Until a connection was had, by those who had one.", waits)
    yield _histogram("headgate_use_seconds", "Until it was given back.", {one.label: one.uses for one in uses})
    creations = {one.label: one.creations for one in uses}
    yield _histogram("headgate_create_seconds", "To open a connection.", creations)


def _histogram(name: str, documentation: str, counts: dict[str, Counts]) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=("pool",))
    for label, one in counts.items():
        family.add_metric((label,), list(zip(BOUNDS, _added_up(one.counts), strict=True)), one.sum_ns / 1e9)
    return family


def _added_up(counts: Iterable[int]) -> Iterator[int]:
    total = 0
    for count in counts:
        total += count
        yield total


def _of_gates(gates: list[tuple[str, GateStatistics]]) -> Families:
    shed = CounterMetricFamily("headgate_shed", "Refused at once, by reason.", labels=("pool", "reason"))
    dropped = CounterMetricFamily("headgate_dropped", "Refused after having waited.", labels=("pool", "reason"))
    revoked = CounterMetricFamily("headgate_revoked", "Warm leases that somebody else got.", labels=("pool",))
    oldest = GaugeMetricFamily("headgate_oldest_wait_seconds", "Of those who wait now.", labels=("pool",))
    overloaded = GaugeMetricFamily("headgate_overloaded", "1 while a standing queue is turned away.", labels=("pool",))
    for label, gate in gates:
        for reason, number in gate.shed.items():
            shed.add_metric((label, reason), number)
        for reason, number in gate.dropped.items():
            dropped.add_metric((label, reason), number)
        revoked.add_metric((label,), gate.revoked)
        oldest.add_metric((label,), gate.oldest_wait_ns / 1e9)
        overloaded.add_metric((label,), gate.overloaded)
    yield from (shed, dropped, revoked, oldest, overloaded)


def _of_stalls(figures: Figures) -> Families:
    count = CounterMetricFamily("headgate_stalls", "Times an event loop stood still, by why.", labels=("verdict",))
    time = CounterMetricFamily("headgate_stalled_seconds", "How long it did.", labels=("verdict",))
    counts: dict[str, int] = {}
    times_ns: dict[str, int] = {}
    for stall in figures.stalls():
        counts[stall.verdict] = counts.get(stall.verdict, 0) + stall.count
        times_ns[stall.verdict] = times_ns.get(stall.verdict, 0) + stall.total_ns
    for verdict, number in counts.items():
        count.add_metric((verdict,), number)
        time.add_metric((verdict,), times_ns[verdict] / 1e9)
    yield from (count, time)
