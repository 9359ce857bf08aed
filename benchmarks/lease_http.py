"""The case over HTTP: three services of one worker each, asked in turn, on a core of their own where there are two."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from closed_loop import ClosedLoop
from interleaved import Arm, Plan
from lease_arms import BARE, OURS, STOCK
from lease_cases import Case, Setting
from lease_work import key_of

from headgate.hosting.service import Service
from headgate.lab.environment import service_environment

FACTORIES = {BARE: "lease_service:bare", STOCK: "lease_service:stock", OURS: "lease_service:ours"}

CONNECTIONS = (5, 15)
"""As many as a stock pool keeps open, and as many as it opens at most."""

BUSY = 0.85
"""A service that used less of its core was not what limited the rate."""


def http_cases(setting: Setting) -> Iterator[Case]:
    for connections in CONNECTIONS:
        yield Case(
            name=f"fastapi/{connections}-connections/database",
            open=partial(open_http, setting, connections),
            full=Plan(rounds=30, operations=1_000),
            quick=Plan(rounds=6, operations=300),
            target=1.4,
            bare="FastAPI over asyncpg's own pool: acquire, then fetchrow.",
            is_rate=True,
            is_here=False,
        )


@contextmanager
def open_http(setting: Setting, connections: int) -> Iterator[Mapping[str, Arm]]:
    url = setting.url("postgresql+asyncpg").render_as_string(hide_password=False)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runner = stack.enter_context(asyncio.Runner())
        service_core = stack.enter_context(cores_divided(setting.postgres_pid))
        turns = {}
        for name, factory in FACTORIES.items():
            service = Service(
                factory,
                {"url": url},
                log=directory / f"{name}.log",
                environment={**service_environment(), **environment()},
            )
            stack.enter_context(service)
            if service_core is not None:
                os.sched_setaffinity(service.pid, {service_core})
            turns[name] = Turns(name, runner, service, connections)
            stack.callback(turns[name].close)
        yield turns


class Turns:
    """One service's turns, and how busy it was in them."""

    def __init__(self, name: str, runner: asyncio.Runner, service: Service, connections: int) -> None:
        self._name = name
        self._runner = runner
        self._service = service
        self._loop = ClosedLoop(service.port, lambda index: f"/accounts/{key_of(index)}")
        runner.run(self._loop.open(connections))
        self._busy_s = self._took_s = 0.0

    def __call__(self, count: int) -> int:
        busy_s, started_s = self._service.cpu_seconds(), time.perf_counter()
        took_ns = self._runner.run(self._loop.time_requests(count))
        self._busy_s += self._service.cpu_seconds() - busy_s
        self._took_s += time.perf_counter() - started_s
        return took_ns

    def close(self) -> None:
        self._loop.close()
        share = self._busy_s / self._took_s if self._took_s else 0.0
        if share < BUSY:
            print(f"  {self._name}: the service used only {share:.0%} of its core, so something else was the limit")


def environment() -> dict[str, str]:
    """Where the service finds its factory, and the Headgate that is measured."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def cores_divided(postgres_pid: int) -> Iterator[int | None]:
    """Yields a core for the services alone; this process and PostgreSQL share the others. None if that cannot be."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) < 2:
        yield None
        return
    everybody = (0, postgres_pid)
    try:
        for process in everybody:
            os.sched_setaffinity(process, cores[1:])
        yield cores[0]
    finally:
        for process in everybody:
            os.sched_setaffinity(process, cores)
