"""What the X-ray costs a service in production: throughput, CPU of an empty request, and what it takes of an idle core.

Starts a PostgreSQL of its own. The services take turns; see docs/benchmarks.md.

    python benchmarks/xray.py [--quick] [--only throughput|queries|empty|idle]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from closed_loop import ClosedLoop
from fastapi import FastAPI
from interleaved import Arm, Comparison, Plan, Spread, compare
from lease_arms import fill
from lease_http import Turns, cores_divided, environment
from lease_work import key_of
from sqlalchemy import URL
from xray_service import off

from headgate.hosting.service import Service
from headgate.lab.environment import service_environment
from headgate.lab.machine import describe_machine
from headgate.lab.postgres import EmbeddedPostgres
from headgate.xray.figures import Figures
from headgate.xray.watch import Watch

CONNECTIONS = 5
"""As many as a stock pool keeps open, so that none is opened or closed meanwhile."""

ARMS = ("off", "on", "shown")
FULL, QUICK = Plan(rounds=30, operations=1_000), Plan(rounds=6, operations=300)
EMPTY_FULL, EMPTY_QUICK = Plan(rounds=60, operations=2_000), Plan(rounds=10, operations=500)
QUERIES_FULL, QUERIES_QUICK = Plan(rounds=60, operations=200), Plan(rounds=20, operations=100)
IDLE_S, IDLE_QUICK_S = 5.0, 1.0
IDLE_ROUNDS = 5


class RouteTurns(Turns):
    """One service's turns at one route."""

    def __init__(self, name: str, runner: asyncio.Runner, service: Service, path: str) -> None:
        super().__init__(name, runner, service, CONNECTIONS)
        self._loop.close()
        self._loop = ClosedLoop(service.port, lambda index: path.format(key=key_of(index)))
        runner.run(self._loop.open(CONNECTIONS))


@contextmanager
def services(url: URL, postgres_pid: int, path: str) -> Iterator[Mapping[str, Arm]]:
    """One worker each, on a core of their own where there are two."""
    configuration = {"url": url.render_as_string(hide_password=False)}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runner = stack.enter_context(asyncio.Runner())
        core = stack.enter_context(cores_divided(postgres_pid))
        turns = {}
        for name in ARMS:
            service = Service(
                f"xray_service:{name}",
                configuration,
                log=directory / f"{name}.log",
                environment={**service_environment(), **environment()},
            )
            stack.enter_context(service)
            _bind(service.pid, core)
            turns[name] = RouteTurns(name, runner, service, path)
            stack.callback(turns[name].close)
        yield turns


def _bind(pid: int, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(pid, {core})


def print_throughput(name: str, comparison: Comparison) -> None:
    rates = {arm: 1e9 / comparison.of(arm).median for arm in ARMS}
    print(f"  {name:<20}" + "".join(f"{arm:>7} {rate:>7,.0f}/s" for arm, rate in rates.items()), end="")
    for arm in ARMS[1:]:
        ratio = comparison.ratio(arm, "off")
        spread = f"({(ratio.lower - 1) * 100:+.1f} to {(ratio.upper - 1) * 100:+.1f})"
        print(f"   {arm} {(ratio.median - 1) * 100:+.1f} % {spread}", end="")
    print(f"   {comparison.plan.rounds} × {comparison.plan.operations}")


def measure_throughput(*, is_quick: bool) -> None:
    print("throughput of one worker; more time for one request, in per cent (quartiles of the rounds)")
    with EmbeddedPostgres(settings={"autovacuum": False}) as postgres:
        url = postgres.url(postgres.create_database())
        fill(url.set(drivername="postgresql+psycopg"))
        for driver in ("asyncpg", "psycopg"):
            with services(url.set(drivername=f"postgresql+{driver}"), postgres.pid, "/two/{key}") as arms:
                print_throughput(f"{driver}, 2 queries", compare(arms, QUICK if is_quick else FULL))
        with services(url.set(drivername="postgresql+asyncpg"), postgres.pid, "/empty") as arms:
            print_throughput("empty", compare(arms, QUICK if is_quick else FULL))


# requests without a server around them


class DirectRequests:
    """Asks an app in this process, which is watched only while it is this arm's turn."""

    def __init__(self, runner: asyncio.Runner, app: FastAPI, path: str, *, is_watched: bool) -> None:
        self._runner = runner
        self._app = app
        self._path = path
        self._is_watched = is_watched

    def __call__(self, count: int) -> int:
        if not self._is_watched:
            return self._runner.run(self._ask(count))
        watch = Watch()
        watch.is_recording = False
        watch.listeners.append(Figures(watch))
        watch.open()
        try:
            return self._runner.run(self._ask(count))
        finally:
            watch.close()

    async def _ask(self, count: int) -> int:
        """CPU nanoseconds of this thread."""
        await _ask_once(self._app, self._path)
        started_ns = time.thread_time_ns()
        for _ in range(count):
            await _ask_once(self._app, self._path)
        return time.thread_time_ns() - started_ns


async def _ask_once(app: FastAPI, path: str = "/empty") -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, _receive, _send)


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    pass


def measure_empty(*, is_quick: bool) -> None:
    _measure_direct("empty", off({"url": "sqlite+aiosqlite://"}), "/empty", EMPTY_QUICK if is_quick else EMPTY_FULL)


def measure_queries(*, is_quick: bool) -> None:
    with EmbeddedPostgres(settings={"autovacuum": False}) as postgres:
        url = postgres.url(postgres.create_database())
        fill(url.set(drivername="postgresql+psycopg"))
        for driver in ("asyncpg", "psycopg"):
            app = off({"url": url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)})
            _measure_direct(f"{driver}, 2 queries", app, "/two/7", QUERIES_QUICK if is_quick else QUERIES_FULL)


def _measure_direct(name: str, app: FastAPI, path: str, plan: Plan) -> None:
    with asyncio.Runner() as runner:
        arms = {name: DirectRequests(runner, app, path, is_watched=name == "on") for name in ("off", "on")}
        comparison = compare(arms, plan)
    pairs = zip(comparison.took_ns["on"], comparison.took_ns["off"], strict=True)
    more = Spread.of([(one - other) / 1e3 for one, other in pairs])
    ratio = comparison.ratio("on", "off")
    print(
        f"  {name:<20}CPU off {comparison.of('off').median / 1e3:.1f} µs, "
        f"on {comparison.of('on').median / 1e3:.1f} µs: "
        f"{more.median:+.2f} µs ({more.lower:+.2f} to {more.upper:+.2f}), {(ratio.median - 1) * 100:+.1f} % "
        f"({(ratio.lower - 1) * 100:+.1f} to {(ratio.upper - 1) * 100:+.1f})   {plan.rounds} × {plan.operations}"
    )


# an idle process


async def _idle_share(seconds: float) -> float:
    started_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
    await asyncio.sleep(seconds)
    return (time.process_time_ns() - cpu_ns) / (time.monotonic_ns() - started_ns)


async def _watched_idle_share(app: FastAPI, seconds: float) -> float:
    watch = Watch()
    watch.is_recording = False
    watch.listeners.append(Figures(watch))
    watch.open()
    try:
        await _ask_once(app)
        return await _idle_share(seconds)
    finally:
        watch.close()


def measure_idle(*, is_quick: bool) -> None:
    app = off({"url": "sqlite+aiosqlite://"})
    seconds = IDLE_QUICK_S if is_quick else IDLE_S
    shares = []
    for _ in range(IDLE_ROUNDS):
        plain = asyncio.run(_idle_share(seconds))
        shares.append(asyncio.run(_watched_idle_share(app, seconds)) - plain)
    shown = ", ".join(f"{share:.2%}" for share in sorted(shares))
    print(f"heartbeat and watchdog of an idle process, share of a core: {shown} ({IDLE_ROUNDS} × {seconds:g} s)")


PARTS = {"throughput": measure_throughput, "queries": measure_queries, "empty": measure_empty, "idle": measure_idle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone")
    args = parser.parse_args()
    machine = describe_machine("")
    print(f"{machine.cpu}, {machine.cores} cores, load {machine.load_average}; {machine.python}")
    for name in args.only or PARTS:
        PARTS[name](is_quick=args.quick)


if __name__ == "__main__":
    main()
