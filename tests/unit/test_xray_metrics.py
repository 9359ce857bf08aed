"""What Prometheus reads, parsed as Prometheus would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headgate.config import GateOptions
from headgate.errors import Overloaded
from headgate.gate import Gate
from headgate.names import PHASES
from headgate.tallies import WAIT_BOUNDS_NS
from headgate.xray.figures import Figures
from headgate.xray.metrics import SEVERAL_PROCESSES, FiguresCollector, Prometheus
from headgate.xray.observation import NOWHERE, Stall
from headgate.xray.watch import Watch

from .live_requests import MS, make_hold, make_request, make_scope, make_tally

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(figures: Figures) -> Samples:
    registry = CollectorRegistry()
    registry.register(FiguresCollector(figures))
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def pick(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """A process that has done a bit of everything."""
    watch = Watch()
    figures = Figures(watch)
    pool, request = make_tally("main"), make_request(make_scope())
    watch.live.pools[id(pool)] = pool
    pool.pending, pool.timeouts = 2, 3
    make_hold(pool, request, held_ms=60, waited_ms=3)
    figures.end_request(request)
    figures.end_request(make_request(make_scope(template='/say/"hello"\n\\')))
    figures.connect(pool, 40 * MS)
    stalls = (
        Stall("code", NOWHERE, "", 2, 300 * MS, 200 * MS, 5),
        Stall("code", NOWHERE, "json.loads", 1, 100 * MS, 100 * MS, 0),
        Stall("import", NOWHERE, "", 1, 50 * MS, 50 * MS, 0),
    )
    monkeypatch.setattr(watch, "stalls", lambda: stalls)
    return figures


def test_the_phases_of_a_route_add_up_to_its_time(figures: Figures) -> None:
    samples = read(figures)
    phases = {
        phase: pick(samples, "headgate_phase_seconds_total", route="GET /orders/{id}", phase=phase) for phase in PHASES
    }
    assert phases["database"] == pytest.approx(0.06)
    assert sum(phases.values()) == pytest.approx(0.1)
    assert pick(samples, "headgate_requests_total", route="GET /orders/{id}", status="2xx") == 1


def test_a_route_that_needs_escaping_comes_back_as_it_was(figures: Figures) -> None:
    assert pick(read(figures), "headgate_requests_total", route='GET /say/"hello"\n\\', status="2xx") == 1


def test_histograms_have_the_gates_bounds_and_are_cumulative(figures: Figures) -> None:
    samples = read(figures)
    bounds = [float(dict(labels)["le"]) for name, labels in samples if name == "headgate_wait_seconds_bucket"]
    assert bounds == [*(bound_ns / 1e9 for bound_ns in WAIT_BOUNDS_NS), float("inf")]
    counts = [value for (name, _), value in samples.items() if name == "headgate_wait_seconds_bucket"]
    assert counts == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert pick(samples, "headgate_wait_seconds_count", pool="main") == 1
    assert pick(samples, "headgate_wait_seconds_sum", pool="main") == pytest.approx(0.003)
    assert pick(samples, "headgate_use_seconds_sum", pool="main") == pytest.approx(0.06)
    assert pick(samples, "headgate_create_seconds_sum", pool="main") == pytest.approx(0.04)


def test_a_stock_pool_shows_how_it_is(figures: Figures) -> None:
    samples = read(figures)
    assert pick(samples, "headgate_connections_limit", pool="main") == 15
    assert pick(samples, "headgate_connections", pool="main", state="in_use") == 0
    assert pick(samples, "headgate_pending", pool="main") == 2
    assert pick(samples, "headgate_timeouts_total", pool="main") == 3


def test_stalls_are_counted_by_verdict(figures: Figures) -> None:
    samples = read(figures)
    assert pick(samples, "headgate_stalls_total", verdict="code") == 3
    assert pick(samples, "headgate_stalled_seconds_total", verdict="code") == pytest.approx(0.4)
    assert pick(samples, "headgate_stalls_total", verdict="import") == 1


def test_a_gate_shows_whom_it_has_refused() -> None:
    figures = Figures(Watch())
    gate = Gate(GateOptions(connections=1, max_wait=0.0), name="shop")
    figures.know_gate(gate)
    gate.acquire_nowait()
    with pytest.raises(Overloaded):
        gate.acquire()
    samples = read(figures)
    statistics = gate.statistics()
    refused = {**statistics.shed, **statistics.dropped}
    assert refused
    shown = {
        dict(labels)["reason"]: value
        for (name, labels), value in samples.items()
        if name in ("headgate_shed_total", "headgate_dropped_total")
    }
    assert shown == refused
    assert pick(samples, "headgate_connections", pool="shop", state="in_use") == 1
    assert pick(samples, "headgate_wait_seconds_count", pool="shop") == 1
    assert pick(samples, "headgate_overloaded", pool="shop") == 0


def test_nothing_has_to_have_happened() -> None:
    assert pick(read(Figures(Watch())), "headgate_requests_in_flight") == 0


def test_it_says_what_several_processes_do_not_get(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SEVERAL_PROCESSES, "/somewhere")
    Prometheus(CollectorRegistry()).start(Figures(Watch()))
    assert "adds up no collectors" in caplog.text


def test_every_metric_is_documented_and_no_other(figures: Figures) -> None:
    """Also its labels."""
    page = (Path(__file__).parents[2] / "docs/xray.md").read_text(encoding="utf-8")
    page = page.partition("\n### Prometheus\n")[2].partition("\n### ")[0]
    told = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(headgate_\w+)` \|[^|]*\|([^|]*)\|", page, re.MULTILINE)
    }
    gate = Gate(GateOptions(connections=1), name="shop")
    figures.know_gate(gate)
    made = {}
    for family in FiguresCollector(figures).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        made[name] = tuple(getattr(family, "_labelnames", ()))
    assert told == made
