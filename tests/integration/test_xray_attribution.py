"""Delays that are injected, one into each phase, are found in that phase: to 5 %, or a millisecond."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, field_serializer
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from headgate.names import PHASES
from headgate.xray.observation import Observation
from headgate.xray.watch import Watch

DELAY_S, STALL_S = 0.2, 0.4
injected_s: defaultdict[str, float] = defaultdict(float)
"""What the app itself has measured, by path and phase; a busy machine makes each longer than it was meant to be."""


@contextmanager
def injecting(name: str) -> Iterator[None]:
    began_s = time.perf_counter()
    yield
    injected_s[name] += time.perf_counter() - began_s


class Slow(BaseModel):
    value: int

    @field_serializer("value")
    def write(self, value: int) -> int:
        with injecting("/serialize serialize"):
            time.sleep(DELAY_S)
        return value


@pytest.fixture
def watch() -> Iterator[Watch]:
    watched = Watch()
    watched.open()
    try:
        yield watched
    finally:
        watched.close()


@pytest.fixture
async def engine(postgres_url: URL) -> AsyncIterator[AsyncEngine]:
    """Of one connection, that takes its time to be made."""
    address = postgres_url.render_as_string(hide_password=False)

    async def connect() -> asyncpg.Connection:
        with injecting("/connect connect"):
            await asyncio.sleep(DELAY_S)
            return await asyncpg.connect(address)

    made = create_async_engine("postgresql+asyncpg://", async_creator=connect, pool_size=1, max_overflow=0)
    async with made.connect():
        pass  # what is asked of a server once
    await made.dispose()
    injected_s.clear()
    yield made
    await made.dispose()


def make_app(engine: AsyncEngine) -> FastAPI:
    app = FastAPI()

    @app.get("/connect")
    async def connect() -> None:
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))

    @app.get("/database")
    async def query() -> None:
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))
            with injecting("/database database"):
                await session.execute(text(f"SELECT pg_sleep({DELAY_S})"))

    @app.get("/held")
    async def hold() -> None:
        async with AsyncSession(engine) as session:
            with injecting("/held gate_wait"):
                await session.connection()
            with injecting("/held held_idle"):
                await asyncio.sleep(DELAY_S)

    @app.get("/thread")
    def wait() -> None:
        injected_s["/thread thread_wait"] += time.perf_counter() - injected_s["asked at"]
        time.sleep(DELAY_S)

    @app.get("/serialize", response_model=Slow)
    async def serialize() -> Slow:
        return Slow(value=1)

    async def rows() -> AsyncIterator[str]:
        with injecting("/send send"):
            await asyncio.sleep(DELAY_S)
        yield "row"

    @app.get("/send")
    async def send() -> StreamingResponse:
        return StreamingResponse(rows())

    @app.get("/unattributed")
    async def sleep() -> None:
        with injecting("/unattributed unattributed"):
            await asyncio.sleep(DELAY_S)

    @app.get("/stalled")
    async def suffer() -> None:
        with injecting("/stalled all"):
            await asyncio.sleep(2 * STALL_S)

    return app


async def test_injected_delays_are_found_in_their_phases(watch: Watch, engine: AsyncEngine) -> None:
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    transport = httpx.ASGITransport(make_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://app", timeout=30) as client:

        async def ask(*paths: str) -> None:
            await asyncio.gather(*(client.get(path) for path in paths))

        await ask("/connect")
        await ask("/database")
        await ask("/held", "/held")  # one connection: the second waits for the first
        await ask("/send", "/unattributed")
        injected_s["asked at"] = time.perf_counter()
        await ask("/thread", "/thread")  # one thread, likewise
        await ask("/serialize")
        suffering = asyncio.create_task(ask("/stalled"))
        await asyncio.sleep(STALL_S / 2)
        with injecting("/stalled stalled"):
            time.sleep(STALL_S)  # noqa: ASYNC251
        await suffering
    del injected_s["asked at"]
    injected_s["/stalled unattributed"] = injected_s.pop("/stalled all") - injected_s["/stalled stalled"]
    observation = watch.observe()
    process = observation.process
    tolerance = 0.05 + process.kept_waiting_ns / max(1, process.wall_ns)
    for name, expected_s in injected_s.items():
        path, phase = name.split()
        found = times_of(observation, path)
        assert found[phase] == pytest.approx(expected_s, rel=tolerance, abs=0.001), (name, found, injected_s)
    assert len(injected_s) == 10


def times_of(observation: Observation, path: str) -> dict[str, float]:
    route: Any = next(route for route in observation.routes if route.route == f"GET {path}")
    return {phase: time_ns / 1e9 for phase, time_ns in zip(PHASES, route.times_ns, strict=True)}
