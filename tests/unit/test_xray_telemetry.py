"""What OpenTelemetry's SDK reads of our instruments, by the names of its semantic conventions."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from headgate.config import GateOptions
from headgate.gate import Gate
from headgate.xray.figures import Figures
from headgate.xray.telemetry import BOUNDS, POOL, STATE, OpenTelemetry
from headgate.xray.watch import Watch

from .live_requests import MS, make_hold, make_request, make_tally

NAMES = {
    "db.client.connection.count": ("{connection}", "Sum"),
    "db.client.connection.max": ("{connection}", "Sum"),
    "db.client.connection.pending_requests": ("{request}", "Sum"),
    "db.client.connection.timeouts": ("{timeout}", "Sum"),
    "db.client.connection.create_time": ("s", "Histogram"),
    "db.client.connection.wait_time": ("s", "Histogram"),
    "db.client.connection.use_time": ("s", "Histogram"),
}


@pytest.fixture
def read() -> Any:
    """Reads a process in which a bit has happened: its metrics by name."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    watch = Watch()
    figures = Figures(watch)
    figures.export(OpenTelemetry(provider))
    pool, request, gate = make_tally("main"), make_request(), Gate(GateOptions(connections=3), name="shop")
    watch.live.pools[id(pool)] = pool
    figures.know_gate(gate)
    gate.acquire_nowait()
    pool.pending, pool.timeouts = 2, 3
    make_hold(pool, request, held_ms=60, waited_ms=3)
    figures.connect(pool, 40 * MS)
    figures.end_request(request)

    def read_all() -> dict[str, Any]:
        assert gate.connections == 3  # it is shown for as long as somebody has it
        data: Any = reader.get_metrics_data()
        (scope,) = data.resource_metrics[0].scope_metrics
        assert scope.scope.name == "headgate"
        return {metric.name: metric for metric in scope.metrics}

    yield read_all
    provider.shutdown()


def points(metric: Any) -> dict[tuple[str, ...], Any]:
    return {tuple(point.attributes.values()): point for point in metric.data.data_points}


def test_the_instruments_are_those_of_the_conventions(read: Any) -> None:
    found = {name: (metric.unit, type(metric.data).__name__) for name, metric in read().items()}
    assert found == NAMES


def test_counts_go_up_and_down_and_timeouts_only_up(read: Any) -> None:
    metrics = read()
    monotonic = {name for name, metric in metrics.items() if getattr(metric.data, "is_monotonic", False)}
    assert monotonic == {"db.client.connection.timeouts"}


def test_pools_show_how_they_are(read: Any) -> None:
    metrics = read()
    count = points(metrics["db.client.connection.count"])
    assert {key: point.value for key, point in count.items()} == {
        ("main", "used"): 0,
        ("main", "idle"): 0,
        ("shop", "used"): 1,
        ("shop", "idle"): 0,
    }
    assert all(list(point.attributes) == [POOL, STATE] for point in count.values())
    assert points(metrics["db.client.connection.max"])["shop",].value == 3
    assert points(metrics["db.client.connection.pending_requests"])["main",].value == 2
    assert points(metrics["db.client.connection.timeouts"])["main",].value == 3


@pytest.mark.parametrize(("name", "seconds"), [("create_time", 0.04), ("wait_time", 0.003), ("use_time", 0.06)])
def test_times_are_seconds(read: Any, name: str, seconds: float) -> None:
    point = points(read()[f"db.client.connection.{name}"])["main",]
    assert point.count == 1
    assert point.sum == pytest.approx(seconds)
    assert tuple(point.explicit_bounds) == BOUNDS


def test_without_an_sdk_nothing_happens() -> None:
    figures, pool, request = Figures(Watch()), make_tally(), make_request()
    figures.export(OpenTelemetry())
    make_hold(pool, request)
    figures.end_request(request)
    figures.connect(pool, MS)
    assert figures.routes()[0].requests == 1
