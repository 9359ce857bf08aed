"""Whole runs: pacing, order, progress, limits of the machine."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headgate.errors import LoadError
from headgate.load import pacer
from headgate.load.alarm import LoopAlarm, new_alarm
from headgate.load.driver import LoadPlan, Progress, run, run_load
from headgate.load.summary import lateness, summarize
from headgate.load.target import Target

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Echo(asyncio.Protocol):
    """Answers at once, and notes the request lines."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._lines.append(data.partition(b"\r\n")[0])
        self._transport.write(OK)  # type: ignore[attr-defined]


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[list[bytes], str]]:
    lines: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Echo(lines), "127.0.0.1", 0, backlog=1_024)
    async with server:
        yield lines, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def constant_plan(url: str, rate: int, duration_s: float, **options: object) -> LoadPlan:
    schedule = pacer.in_turn(pacer.constant(rate, duration_s), 1)
    return LoadPlan((Target("/", url + "/"),), schedule, **options)  # type: ignore[arg-type]


async def test_requests_leave_when_they_are_due_and_never_earlier() -> None:
    async with serving() as (_, url):
        result = await run_load(constant_plan(url, 200, 1))
    samples = result.samples
    assert (len(samples), result.planned, result.issued) == (200, 200, 200)
    assert all(sample.lateness_ns >= 0 for sample in samples)
    assert lateness(samples).p50 < 0.005
    assert summarize("/", samples).offered_rate == pytest.approx(201.0, abs=0.1)
    assert 0 < result.generator_cpu < 1.5


async def test_a_stalled_generator_is_late_and_says_so() -> None:
    async with serving() as (_, url):
        asyncio.get_running_loop().call_later(0.1, time.sleep, 0.2)
        result = await run_load(constant_plan(url, 100, 0.5))
    late = lateness(result.samples)
    assert late.max > 0.1
    assert max(sample.latency_ns for sample in result.samples) >= late.max * pacer.NS_PER_S


async def test_targets_due_together_leave_in_the_order_given() -> None:
    async with serving() as (lines, url):
        targets = (Target("a", url + "/a"), Target("b", url + "/b"))
        schedule = pacer.together([pacer.burst(20), pacer.burst(20)])
        result = await run_load(LoadPlan(targets, schedule, max_connections=1))
    assert lines == [b"GET /a HTTP/1.1"] * 20 + [b"GET /b HTTP/1.1"] * 20
    assert [sample.target for sample in result.samples] == ["a"] * 20 + ["b"] * 20


async def test_progress_is_reported_while_it_runs() -> None:
    seen: list[Progress] = []
    async with serving() as (_, url):
        await run_load(constant_plan(url, 100, 0.5), on_progress=seen.append)
    assert seen[0].planned == 50
    assert [p.finished for p in seen] == sorted(p.finished for p in seen)
    assert 10 < seen[-1].finished <= 50


async def test_a_failing_progress_callback_ends_the_run_with_its_own_error() -> None:
    def fail(_: Progress) -> None:
        raise ZeroDivisionError

    async with serving() as (_, url):
        with pytest.raises(ZeroDivisionError):
            await run_load(constant_plan(url, 10, 60), on_progress=fail)


async def test_the_collector_is_paused_only_during_the_run() -> None:
    during: list[bool] = []
    async with serving() as (_, url):
        await run_load(constant_plan(url, 100, 0.1), on_progress=lambda _: during.append(gc.isenabled()))
    assert during[0] is False
    assert gc.isenabled()


async def test_localhost_finds_the_address_that_listens() -> None:
    async with serving() as (_, url):
        result = await run_load(constant_plan(url.replace("127.0.0.1", "localhost"), 10, 0.1))
    assert [sample.status for sample in result.samples] == [200]


async def test_must_reach_fails_at_once() -> None:
    async with serving() as (_, url):
        pass
    with pytest.raises(LoadError, match=r"cannot reach 127\.0\.0\.1:\d+ \(refused\)"):
        await run_load(constant_plan(url, 10, 60, must_reach=True))


@pytest.mark.parametrize("uvloop_installed", [True, False])
def test_run_brings_its_own_loop(uvloop_installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not uvloop_installed:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    loops: list[str] = []

    def note(_: Progress) -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    result = run(constant_plan("http://127.0.0.1:9", 10, 0.1), on_progress=note)
    assert [sample.error for sample in result.samples] == ["refused"]
    assert loops[0].startswith("uvloop") is uvloop_installed


async def test_a_missing_parser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(LoadError, match=r"needs httptools; pip install 'headgate\[lab\]'"):
        await run_load(constant_plan("http://127.0.0.1:9", 10, 0.1))


def test_importing_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules.update(httptools=None, uvloop=None, rich=None); "
        "import headgate.load.driver, headgate.load.checks, headgate.cli.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize("make", [LoopAlarm, new_alarm])
async def test_alarms_are_never_early(make: type[LoopAlarm]) -> None:
    rings: list[int] = []
    rang = asyncio.Event()

    def ring() -> None:
        rings.append(time.monotonic_ns())
        rang.set()

    alarm = make(asyncio.get_running_loop(), ring)
    try:
        for delay_ns in (0, 300_000, 1_500_000, 7_777_777):
            rang.clear()
            due_ns = time.monotonic_ns() + delay_ns
            alarm.arm(due_ns)
            await asyncio.wait_for(rang.wait(), 2)
            assert rings[-1] >= due_ns
    finally:
        alarm.close()
    assert len(rings) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": 0}, "timeout 0 is not above 0 s"),
        ({"timeout_s": float("nan")}, "timeout nan is not above 0 s"),
        ({"max_connections": 0}, "max connections 0 is below 1"),
    ],
)
def test_impossible_plans_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        constant_plan("http://127.0.0.1:9", 1, 1, **options)


def test_plans_need_requests_and_targets() -> None:
    with pytest.raises(LoadError, match="no requests"):
        LoadPlan((Target("/", "http://h/"),), pacer.Schedule([], []))
    with pytest.raises(LoadError, match="more targets than the plan's 1"):
        LoadPlan((Target("/", "http://h/"),), pacer.Schedule([0], [1]))
