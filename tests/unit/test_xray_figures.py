"""What is told to whom when something ends, and how pools are shown."""

from __future__ import annotations

import gc
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine

from headgate.config import GateOptions
from headgate.errors import ConfigError
from headgate.gate import Gate
from headgate.xray.console.access import ConsoleOptions
from headgate.xray.figures import Figures, figures_of
from headgate.xray.pools import look_at_pools
from headgate.xray.production import Production
from headgate.xray.slow_log import SlowLog
from headgate.xray.watch import Watch

from .live_requests import MS, make_hold, make_request, make_tally


class Meter:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def hold(self, pool: str, waited_ns: int, used_ns: int) -> None:
        self.told.append((pool, waited_ns, used_ns))

    def creation(self, pool: str, took_ns: int) -> None:
        self.told.append((pool, 0, took_ns))


@pytest.fixture
def watch() -> Watch:
    """One that is not open."""
    return Watch()


def test_a_watch_has_figures_once(watch: Watch) -> None:
    assert figures_of(watch) is figures_of(watch)
    assert len(watch.listeners) == 1


def test_an_export_is_started_once(watch: Watch) -> None:
    started: list[Figures] = []
    figures = Figures(watch)
    export = SimpleNamespace(start=started.append)
    figures.export(export)
    figures.export(export)
    assert started == [figures]


def test_a_hold_is_measured_once_whenever_it_ends(watch: Watch) -> None:
    figures, meter, pool, request = Figures(watch), Meter(), make_tally("main"), make_request()
    figures.meters.append(meter)
    make_hold(pool, request, held_ms=60, waited_ms=3)
    late = make_hold(pool, request)
    late.ended_ns = 0
    figures.end_request(request)
    late.ended_ns = 70 * MS
    figures.end_hold(late)
    figures.connect(pool, MS)
    assert meter.told == [("main", 3 * MS, 60 * MS), ("main", 3 * MS, 70 * MS), ("main", 0, MS)]
    assert sum(figures.uses()[0].uses.counts) == 2


def test_our_own_requests_are_left_out(watch: Watch) -> None:
    figures, request = Figures(watch), make_request()
    figures.slow_log = SlowLog(0)
    watch.live.requests[id(request)] = request
    figures.leave_out(request)
    assert figures.requests() == []
    figures.end_request(request)
    assert figures.routes() == []
    assert not figures.is_left_out(request)


@pytest.mark.parametrize(("total_ms", "lines"), [(99, 0), (100, 1), (101, 1)])
def test_the_threshold_is_slow_already(
    watch: Watch, caplog: pytest.LogCaptureFixture, total_ms: int, lines: int
) -> None:
    figures = Figures(watch)
    figures.slow_log = SlowLog(100 * MS)
    with caplog.at_level(logging.WARNING, "headgate.xray"):
        figures.end_request(make_request(total_ms=total_ms))
    assert len(caplog.records) == lines


def test_a_listener_that_fails_is_said_once_and_hurts_nobody(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError

    watch.listeners.append(SimpleNamespace(end_request=fail, end_hold=fail, connect=fail))  # type: ignore[arg-type]
    request, pool = make_request(), make_tally()
    watch.live.begin = lambda request: None  # type: ignore[method-assign]
    watch.live.requests[id(request)] = request
    watch.live.end(request, 100 * MS)
    watch.live.on_connect(pool, MS)
    watch.live.hold(pool, make_hold(pool))
    watch.live.let_go(pool, 100 * MS)
    assert capsys.readouterr().err == "headgate: the X-ray has failed, and the service goes on: RuntimeError: \n"


def test_a_gate_is_shown_before_its_first_lease_and_not_kept_alive(watch: Watch) -> None:
    figures, gate = Figures(watch), Gate(GateOptions(connections=3), name="shop")
    figures.know_gate(gate)
    figures.know_gate(gate)
    (pool,) = figures.pools()
    assert (pool.label, pool.limit, pool.in_use, pool.pending) == ("shop", 3, 0, 0)
    del gate, pool
    gc.collect()
    assert figures.pools() == []


def test_gates_and_pools_of_one_name_are_shown_together() -> None:
    gates = [Gate(GateOptions(connections=3)), Gate(GateOptions(connections=4))]
    gates[0].acquire_nowait()
    one, other = make_tally("main"), make_tally("main")
    one.pending, other.timeouts = 2, 5
    leased, stock = look_at_pools(gates, [("main", one), ("main", other)], [])
    assert (leased.label, leased.limit, leased.in_use) == ("default", 7, 1)
    assert leased.gate is not None
    assert leased.gate.connections == 7
    assert leased.gate.acquired == 1
    assert (stock.label, stock.limit, stock.pending, stock.timeouts) == ("main", 30, 2, 5)


def test_a_pool_is_named_by_its_database_without_the_user(watch: Watch) -> None:
    seams = list(watch.databases.seams())
    try:
        engine = create_engine("postgresql+psycopg://me:secret@db.internal:5433/shop?host=")
        assert watch.databases.place_of(engine.pool) == "db.internal:5433/shop"
        lite = create_engine("sqlite:///some.db")
        assert watch.databases.place_of(lite.pool) == "sqlite/some.db"
    finally:
        for seam in seams:
            seam.undo()
    assert watch.databases.place_of(create_engine("sqlite://").pool) == ""


@pytest.mark.parametrize("slow", [-1.0, float("nan"), float("inf"), "1"])
def test_a_threshold_that_is_no_time_is_refused(slow: Any) -> None:
    with pytest.raises(ConfigError, match="slow="):
        Production(slow=slow)


def test_exports_are_a_tuple() -> None:
    with pytest.raises(ConfigError, match="exports"):
        Production(exports=[])  # type: ignore[arg-type]


def test_options_show_no_token() -> None:
    token = "t" * 30
    assert token not in repr(Production(console=ConsoleOptions(token)))
