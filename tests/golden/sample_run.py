"""A made-up run for the report's tests: plausible, seeded, simulated. Nothing in it was measured."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass

from headgate.lab.results import (
    SCHEMA_VERSION,
    ArmResult,
    Check,
    ConnectionStates,
    Distribution,
    ExperimentResult,
    Figure,
    Finding,
    Machine,
    Mode,
    PathResult,
    PointResult,
    Prediction,
    Published,
    Run,
    Stack,
    Usage,
)

Row = tuple[float, float, bool]

SLEEP_SOURCE = "Test FastAPI with SQLAlchemy and session usage"
PING_SOURCE = "fastapi-sqlalchemy-slowness"


def sample_run(mode: Mode = "full") -> Run:
    """Three experiments as the lab might have found them; an arm of ``ping`` and a point of ``overload`` are void."""
    scale = 0.1 if mode == "quick" else 1.0
    return Run(
        schema_version=SCHEMA_VERSION,
        headgate_version="0.1.0",
        mode=mode,
        started_at="2026-01-02T03:04:05+00:00",
        duration=412.6 * scale,
        machine=Machine(
            system="Linux 6.1 x86_64",
            cpu="Sample Processor 3000",
            cores=2,
            memory_bytes=8_321_499_136,
            python="3.11.9",
            packages={"fastapi": "0.121.0", "sqlalchemy": "2.0.43", "asyncpg": "0.30.0", "uvicorn": "0.34.0"},
            postgresql="18.0",
            load_average=0.12,
        ),
        experiments=(_ping(mode, scale), _sleep(mode, scale), _overload(mode, scale)),
        complete=True,
        notes=("No free-threaded Python was found: that arm of «modes» was left out.",),
    )


# ---- sleep ----


@dataclass(frozen=True, slots=True)
class _SleepArm:
    name: str
    title: str
    stack: Stack
    path: str
    servers: int
    constraint: str
    published: tuple[float, float, float, float] | None
    holds_transaction: bool


_SLEEP_ARMS = (
    _SleepArm(
        "sync-outside",
        "sync, sleep outside the session",
        "stock",
        "/sync_session_sleep_outside_session",
        40,
        "40 threads ÷ {hold:g} s",
        (19.03, 100.0, 11.6, 21.3),
        False,
    ),
    _SleepArm(
        "sync-inside",
        "sync, sleep inside the session",
        "stock",
        "/sync_session_sleep_inside_session",
        15,
        "15 connections ÷ {hold:g} s",
        (6.80, 47.6, 30.0, 30.0),
        True,
    ),
    _SleepArm(
        "async-outside",
        "async, sleep outside the session",
        "stock",
        "/async_session_sleep_outside_session",
        10_000,
        "offered",
        (71.49, 100.0, 2.00, 2.10),
        False,
    ),
    _SleepArm(
        "async-inside",
        "async, sleep inside the session",
        "stock",
        "/async_session_sleep_inside_session",
        15,
        "15 connections ÷ {hold:g} s",
        (6.86, 48.0, 30.0, 30.0),
        True,
    ),
    _SleepArm(
        "headgate-inside",
        "async, sleep inside a leased session",
        "headgate",
        "/async_session_sleep_inside_session",
        10_000,
        "offered",
        None,
        False,
    ),
)


def _sleep(mode: Mode, scale: float) -> ExperimentResult:
    arms = tuple(_sleep_arm(arm, scale, seed) for seed, arm in enumerate(_SLEEP_ARMS))
    stock, leased = arms[3].paths[0], arms[4].paths[0]
    return ExperimentResult(
        name="sleep",
        question="What does holding a session across a slow call cost?",
        source=f"{SLEEP_SOURCE} (PostgreSQL, open loop of 100/s for 5 s)",
        explanation=(
            "Each request reads one row and then sleeps, as a service does that asks a model or another API. "
            "While it sleeps in its session, stock SQLAlchemy keeps the connection, idle in transaction.\n\n"
            "Fifteen connections, each held two seconds, serve 7.5 requests a second, whatever the database "
            "could do. A leased session gives its connection back after the read."
        ),
        scaled=mode == "quick",
        parameters={
            "rate": 100,
            "duration_s": 5 * scale,
            "sleep_s": 2 * scale,
            "client_timeout_s": 30 * scale,
        },
        arms=arms,
        findings=(
            Finding(
                "Stock holds every connection idle in transaction while handlers sleep",
                True,
                "at most 15 of 15 idle in transaction; with Headgate 0",
            ),
            Finding(
                "Leasing answers every request at the offered rate",
                leased.success_ratio == 1.0,
                f"{leased.successes} of {leased.requests} answered, stock {stock.successes} of {stock.requests}",
            ),
        ),
        verdict=(
            f"Same handler code: {stock.throughput:.2f} → {leased.throughput:.2f} req/s, "
            f"{stock.success_ratio:.0%} → {leased.success_ratio:.0%} answered."
        ),
        passed=True,
    )


def _sleep_arm(arm: _SleepArm, scale: float, seed: int) -> ArmResult:
    hold, timeout, rate = 2.0 * scale, 30.0 * scale, 100
    starts = [index / rate for index in range(int(rate * 5 * scale))]
    rows = _serve(starts, arm.servers, hold, timeout, random.Random(seed), noise=0.004)
    ceiling = min(rate * 5 / (5 + 2), arm.servers / hold)
    return ArmResult(
        name=arm.name,
        title=arm.title,
        stack=arm.stack,
        setup=("Headgate" if arm.stack == "headgate" else "stock SQLAlchemy") + ", pool of 5 + 10, one worker",
        parameters={"pool_size": 5, "max_overflow": 10, "pool_timeout_s": timeout, "threads": 40},
        paths=(_path_result(arm.path, rows, rate, 5 * scale, error="timeout"),),
        published=_sleep_published(arm),
        prediction=Prediction(arm.constraint.format(hold=hold), ceiling),
        connections=_connection_states(rows, arm, scale),
        lateness=_distribution([abs(random.Random(seed).gauss(0.0004, 0.0003)) for _ in rows]),
        generator_cpu=0.11,
        checks=(
            Check("lateness", True, "p99 1.2 ms of at most 5 ms"),
            Check("generator processor", True, "11 % of at most 80 %"),
        ),
    )


def _sleep_published(arm: _SleepArm) -> Published | None:
    if arm.published is None:
        return None
    throughput, success, p50, p99 = arm.published
    return Published(
        SLEEP_SOURCE,
        (
            Figure("throughput", throughput, "req/s"),
            Figure("success ratio", success, "%"),
            Figure("p50", p50, "s"),
            Figure("p99", p99, "s"),
        ),
    )


def _connection_states(rows: list[Row], arm: _SleepArm, scale: float) -> ConnectionStates:
    step, end = 0.25 * scale, max(start + latency for start, latency, _ in rows)
    samples = []
    for index in range(int(end / step) + 2):
        busy = index * step < end and arm.holds_transaction
        samples.append(
            (
                index * step,
                1 if index * step < end else 0,
                0 if busy else min(15, 4 + index),
                15 if busy else 0,
            )
        )
    held = [sample[3] for sample in samples]
    return ConnectionStates(
        samples=tuple(samples),
        max_active=1,
        max_idle=max(sample[2] for sample in samples),
        max_idle_in_transaction=max(held),
        mean_idle_in_transaction=round(sum(held) / len(held), 2),
    )


# ---- ping ----


@dataclass(frozen=True, slots=True)
class _PingArm:
    name: str
    title: str
    stack: Stack
    paths: tuple[str, ...]
    at_once: int
    batch: float
    ping_delay: float
    published: tuple[tuple[str, float, float, float], ...] = ()
    late: bool = False


_COUNT, _SYNC_COUNT, _PING, _PAUSE = (
    "/count-todos-async",
    "/count-todos-sync",
    "/ping",
    "/ping-with-async-sleep",
)
_PING_ARMS = (
    _PingArm("ping", "ping alone", "stock", (_PING,), 100, 0, 0.03, ((_PING, 0.02, 0.04, 0.05),)),
    _PingArm(
        "pause",
        "ping + async sleep",
        "stock",
        (_PAUSE, _PING),
        100,
        10.0,
        0.15,
        ((_PING, 0.11, 0.21, 0.25), (_PAUSE, 10.18, 10.23, 10.25)),
    ),
    _PingArm(
        "limited",
        "async count, client limited to 100 connections",
        "stock",
        (_COUNT, _PING),
        100,
        0.138,
        4.27,
        ((_COUNT, 9.70, 12.18, 12.69), (_PING, 9.70, 12.40, 12.61)),
    ),
    _PingArm("unlimited", "async count, client unlimited", "stock", (_COUNT, _PING), 100, 0.138, 0.5),
    _PingArm(
        "late",
        "async count, NullPool, client on the same core",
        "stock",
        (_COUNT, _PING),
        100,
        0.14,
        0.9,
        (),
        True,
    ),
    _PingArm(
        "sync",
        "sync count, pool of 15",
        "stock",
        (_SYNC_COUNT, _PING),
        15,
        0.138,
        0.6,
        ((_SYNC_COUNT, 1.93, 7.78, 13.39), (_PING, 1.93, 2.41, 2.65)),
    ),
    _PingArm("headgate", "async count, budget of 2", "headgate", (_COUNT, _PING), 2, 0.138, 0.12),
    _PingArm("shared", "async count, shared reads", "headgate", (_COUNT, _PING), 100, 0.0042, 0.08),
)


def _ping(mode: Mode, scale: float) -> ExperimentResult:
    arms = tuple(_ping_arm(arm, scale, seed) for seed, arm in enumerate(_PING_ARMS))
    limited, unlimited = arms[2].paths[1].latency, arms[3].paths[1].latency
    return ExperimentResult(
        name="ping",
        question="Does a slow query delay requests that need no database?",
        source=f"{PING_SOURCE} (M2, 8 cores)",
        explanation=(
            "A hundred counts over a million rows and a hundred pings are sent at once. The source concluded "
            "that async SQLAlchemy blocks the event loop. It does not: the client had a hundred connections, "
            "and the counts, first in the list, took them all."
        ),
        scaled=mode == "quick",
        parameters={"requests": 100, "rows": int(1_000_000 * scale), "client_timeout_s": 30 * scale},
        arms=arms,
        findings=(
            Finding(
                "The client was the queue",
                True,
                f"/ping mean {limited.mean:.2f} s with a client limited to 100, {unlimited.mean:.2f} s without, n 100",
            ),
            Finding("The order of the source is repeated", False, "sync and async counts end within 5 %"),
        ),
        verdict="The client was the queue; the event loop was free.",
        passed=False,
    )


def _ping_arm(arm: _PingArm, scale: float, seed: int) -> ArmResult:
    rng = random.Random(1000 + seed)
    results = tuple(_ping_path(arm, path, scale, rng) for path in arm.paths)
    lateness = [abs(rng.gauss(0.006 if arm.late else 0.0004, 0.003 if arm.late else 0.0003)) for _ in range(200)]
    figures = (Figure("queries", 2 if arm.name == "shared" else 100, ""),) if len(arm.paths) > 1 else ()
    return ArmResult(
        name=arm.name,
        title=arm.title,
        stack=arm.stack,
        setup="SQLite, table of todos, half of them completed",
        parameters={"at_once": arm.at_once, "client_limit": 100 if arm.name == "limited" else None},
        paths=results,
        published=_ping_published(arm),
        prediction=Prediction("2 cores ÷ 0.28 s", 2 / 0.28 / scale) if _COUNT in arm.paths else None,
        connections=None,
        lateness=_distribution(lateness),
        generator_cpu=0.93 if arm.late else 0.08,
        checks=(
            Check("lateness", not arm.late, "p99 12.1 ms, wanted at most 5 ms" if arm.late else "p99 1.1 ms"),
            Check("generator processor", not arm.late, "93 %, wanted at most 80 %" if arm.late else "8 %"),
        ),
        figures=figures,
    )


def _ping_path(arm: _PingArm, path: str, scale: float, rng: random.Random) -> PathResult:
    starts = [0.0] * 100
    if path == _PING:
        rows = [(0.0, arm.ping_delay * scale * rng.uniform(0.4, 1.5), True) for _ in starts]
    elif path == _PAUSE:
        rows = [(0.0, scale * (arm.batch + rng.uniform(0.1, 0.3)), True) for _ in starts]
    else:
        rows = _serve(starts, arm.at_once, arm.batch * arm.at_once * scale, 30 * scale, rng, noise=0.05)
    return _path_result(path, rows, 0.0, 0.0, error="timeout")


def _ping_published(arm: _PingArm) -> Published | None:
    if not arm.published:
        return None
    figures = tuple(
        Figure(f"{path} {name}", value, "s")
        for path, *values in arm.published
        for name, value in zip(("min", "mean", "max"), values, strict=True)
    )
    return Published(PING_SOURCE, figures)


# ---- simulation ----


# ---- overload ----


@dataclass(frozen=True, slots=True)
class _OverloadArm:
    """``shares`` are the goodputs at 1, 2, 5 and 10 times capacity, as shares of it."""

    name: str
    title: str
    stack: Stack
    group: str
    shares: tuple[float, float, float, float]
    p50: float
    refused_in: float | None
    pinged: float


_WORK, _READS = "pg_sleep(0.05)", "three reads with 50 ms between"
_CAPACITIES = {_WORK: 288.0, _READS: 57.0}
_OVERLOAD_ARMS = (
    _OverloadArm("stock", "SQLAlchemy’s defaults", "stock", _WORK, (0.98, 0.33, 0.09, 0.08), 0.74, None, 0.15),
    _OverloadArm("tuned", "pool_timeout tuned, 503", "stock", _WORK, (0.98, 0.97, 0.88, 0.62), 0.29, 0.251, 0.7),
    _OverloadArm("headgate", "defaults", "headgate", _WORK, (0.99, 0.98, 0.96, 0.91), 0.062, 0.004, 1.0),
    _OverloadArm("stock", "SQLAlchemy’s defaults", "stock", _READS, (0.97, 0.31, 0.07, 0.04), 0.81, None, 1.0),
    _OverloadArm("headgate", "defaults", "headgate", _READS, (1.0, 1.52, 1.49, 1.44), 0.28, 0.003, 1.0),
)


def _overload(mode: Mode, scale: float) -> ExperimentResult:
    multiples = (2.0, 10.0) if mode == "quick" else (1.0, 2.0, 5.0, 10.0)
    arms = tuple(_overload_arm(arm, multiples, 10 * scale) for arm in _OVERLOAD_ARMS)
    return ExperimentResult(
        name="overload",
        question="What happens above capacity?",
        source="Asynchronous IO and Back Pressure",
        explanation="A queue that grows with every second makes each answer later than the one before.",
        scaled=mode == "quick",
        parameters={"wanted_s": 1.0, "sleep: capacity": "288.0/s, stock 0.97 of 15 connections ÷ 0.0505 s"},
        arms=(*arms, _recovery(scale)),
        findings=(Finding("Stock collapses", holds=True, evidence="2×: 95/s, 33%, n 5,760"),),
        verdict="void: At 2× / 10× of what it can (288/s), goodput is: stock 33% / 8%, Headgate 98% / 91%.",
        passed=False,
    )


def _overload_arm(arm: _OverloadArm, multiples: tuple[float, ...], seconds: float) -> ArmResult:
    shares = dict(zip((1.0, 2.0, 5.0, 10.0), arm.shares, strict=True))
    runs = 3 if arm.group == _WORK and seconds == 10 else 1
    points = tuple(
        _point(arm, multiple, run, shares[multiple], seconds) for multiple in multiples for run in range(1, runs + 1)
    )
    return ArmResult(
        name=f"{arm.name}-{'sleep' if arm.group == _WORK else 'three-reads'}",
        title=arm.title,
        stack=arm.stack,
        setup="asyncpg, one uvicorn worker",
        parameters={"path": "/sleep"} | ({"pool_timeout_s": 0.25} if arm.name == "tuned" else {}),
        paths=(),
        published=None,
        prediction=None,
        connections=None,
        lateness=points[-1].lateness,
        generator_cpu=0.2,
        checks=(),
        figures=(Figure("goodput at 2× with pool_timeout_s = 0.25", 279.0, "req/s"),) if arm.name == "tuned" else (),
        group=arm.group,
        points=points,
    )


def _point(arm: _OverloadArm, multiple: float, run: int, share: float, seconds: float) -> PointResult:
    capacity = _CAPACITIES[arm.group]
    requests = round(multiple * capacity * seconds)
    good = min(requests, round(share * (0.97 + 0.015 * run) * capacity * seconds))
    late = round(0.1 * good) if arm.refused_in is None and multiple > 1 else 0
    refused = requests - good - late if arm.refused_in else 0
    pings = round(20 * seconds)
    pinged = pings if multiple < 10 else round(arm.pinged * pings)
    late_generator = arm.name == "stock" and multiple == 10 and arm.group == _WORK and run == 1
    return PointResult(
        multiple=multiple,
        run=run,
        capacity=capacity,
        duration=seconds,
        offered_rate=requests / seconds,
        achieved_rate=requests / seconds,
        requests=requests,
        good=good,
        late=late,
        refused=refused,
        failed=requests - good - late - refused,
        goodput=good / seconds,
        answered=_distribution([arm.p50 * (0.9 + 0.2 * index / (good + late)) for index in range(good + late)]),
        refusals=_distribution([(arm.refused_in or 0) * (1 + index / refused) for index in range(refused)]),
        ping_requests=pings,
        pings=_distribution([0.002 * multiple] * pinged),
        usage=Usage(0.03 * multiple, min(0.99, 0.2 * multiple), 0.12, 88 << 20, round((88 + 9 * multiple) * 2**20)),
        limit="the service’s core" if multiple >= 5 else "no processor",
        lateness=_distribution([0.0002, 0.0121 if late_generator else 0.0004]),
        checks=(Check("lateness", not late_generator, "p99 12.1 ms, wanted at most 5 ms"),),
        attempts=3 if late_generator else 1,
    )


def _recovery(scale: float) -> ArmResult:
    rng = random.Random("overload")
    seconds = 20 * scale
    starts = [index / 40 for index in range(round(seconds * 40))]
    rows = _serve(starts, 15, 0.05, 1.0, rng, noise=0.02)
    return ArmResult(
        name="headgate-recovery",
        title="defaults: 10× for 20 s, then 0.5×",
        stack="headgate",
        setup="asyncpg, one uvicorn worker",
        parameters={"path": "/sleep", "runs": 1},
        paths=(_path_result("/sleep", rows, 40.0, seconds, error="timeout"),),
        published=None,
        prediction=None,
        connections=None,
        lateness=_distribution([0.0002, 0.0004]),
        generator_cpu=0.2,
        checks=(Check("lateness", True, "p99 0.4 ms, wanted at most 5 ms"),),
        figures=(Figure("good again after", 0.5, "s"),),
    )


def _serve(
    starts: list[float], servers: int, hold: float, timeout: float, rng: random.Random, *, noise: float
) -> list[Row]:
    """First come, first served by ``servers``; who waits longer than ``timeout`` fails at that moment."""
    free = [0.0] * min(servers, len(starts))
    rows = []
    for start in starts:
        begin = max(start, free[0])
        end = begin + hold * (1 + abs(rng.gauss(0, noise))) + 0.002
        if end - start > timeout:
            rows.append((start, timeout, False))
        else:
            heapq.heapreplace(free, end)
            rows.append((start, end - start, True))
    return rows


def _path_result(path: str, rows: list[Row], rate: float, duration: float, *, error: str) -> PathResult:
    good = [latency for _, latency, success in rows if success]
    last = max(start + latency for start, latency, _ in rows)
    failures = len(rows) - len(good)
    elapsed = max(last, duration)
    return PathResult(
        path=path,
        requests=len(rows),
        successes=len(good),
        offered_rate=rate,
        achieved_rate=rate * 0.998 if rate else 12_345.0,
        throughput=len(good) / elapsed,
        success_ratio=len(good) / len(rows),
        duration=duration,
        wait=elapsed - duration,
        latency=_distribution([latency for _, latency, _ in rows]),
        latency_success=_distribution(good),
        statuses={status: count for status, count in (("200", len(good)), ("0", failures)) if count},
        errors={error: failures} if failures else {},
        points=tuple(rows),
        timeline=_timeline(rows),
    )


def _timeline(rows: list[Row]) -> tuple[tuple[int, int, int, int], ...]:
    offered = Counter(int(start) for start, _, _ in rows)
    good = Counter(int(start) for start, _, success in rows if success)
    return tuple((second, offered[second], good[second], offered[second] - good[second]) for second in sorted(offered))


def _distribution(values: list[float]) -> Distribution:
    if not values:
        return Distribution(0, *([0.0] * 7))
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Distribution(
        len(ordered),
        ordered[0],
        sum(ordered) / len(ordered),
        rank(0.5),
        rank(0.9),
        rank(0.95),
        rank(0.99),
        ordered[-1],
    )
