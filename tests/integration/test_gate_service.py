"""What a service above its capacity answers: over a real uvicorn and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from headgate import ConfigError, Database, lane
from headgate.config import RefusalOptions
from headgate.fastapi import AsyncSessionDep, Deadline, Lane, SessionDep, install
from headgate.health import health_router

from .serving import serve

HOLD_S = 0.02
SLEEP = text(f"SELECT 1 FROM pg_sleep({HOLD_S})")


@pytest.fixture
def db(postgres_url: URL) -> Database:
    """A database of two connections, which twenty milliseconds of work a request keep busy at 100 requests/s."""
    return Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=2, max_wait=0.2)


def make_app(db: Database, *, refusals: RefusalOptions | None = None) -> FastAPI:
    app = FastAPI()
    install(app, db, refusals=refusals)
    app.include_router(health_router())

    @app.get("/rows/{number}")
    async def work(number: int, session: AsyncSessionDep) -> int:
        await session.execute(SLEEP)
        return number

    @app.get("/steps")
    async def steps(session: AsyncSessionDep) -> str:
        for _ in range(3):
            await session.execute(SLEEP)
            await asyncio.sleep(HOLD_S)
        return "done"

    @app.get("/sync")
    def work_sync(session: SessionDep) -> str:
        session.execute(SLEEP)
        return "done"

    @app.get("/sign-in", dependencies=[Lane("high")])
    async def sign_in(session: AsyncSessionDep) -> str:
        await session.execute(text("SELECT 1"))
        return "welcome"

    @app.get("/hasty", dependencies=[Deadline(0.05)])
    async def hasty(session: AsyncSessionDep) -> str:
        await session.execute(text("SELECT 1"))
        return "in time"

    @app.get("/ping")
    async def ping() -> str:
        return "pong"

    return app


class Load:
    """Requests that come whether earlier ones have been answered or not."""

    def __init__(self, client: httpx.AsyncClient, path: str, rate: float) -> None:
        self._client = client
        self._path = path
        self._rate = rate
        self.answers: list[httpx.Response] = []

    async def run(self) -> None:
        number = 0
        async with asyncio.TaskGroup() as group:
            while True:
                number += 1
                group.create_task(self._ask(self._path.format(number)))
                await asyncio.sleep(1 / self._rate)

    async def _ask(self, path: str) -> None:
        self.answers.append(await self._client.get(path))

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=20) as client:
        yield client


@asynccontextmanager
async def overloaded(client: httpx.AsyncClient, db: Database, path: str = "/rows/{}") -> AsyncIterator[Load]:
    """Two and a half times the capacity, from when the gate is overloaded until the block ends."""
    load = Load(client, path, rate=250)
    task = asyncio.create_task(load.run())
    try:
        async with asyncio.timeout(10):
            while not db.gate.is_overloaded:  # noqa: ASYNC110  # it is told by the clock
                await asyncio.sleep(0.02)
        load.answers.clear()
        yield load
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_in_overload_some_are_answered_soon_and_the_rest_turned_away_at_once(db: Database) -> None:
    with serve(make_app(db)) as url:
        async with client_of(url) as client, overloaded(client, db) as load:
            await asyncio.sleep(1.5)
            shed = db.gate.statistics().shed
            refused = [answer for answer in load.answers if answer.status_code == 503]
    assert set(load.statuses) == {200, 503}
    assert load.statuses[200] >= 20
    assert shed["overload"] > len(refused) / 2, "most are turned away before routing"
    answer = next(one for one in refused if one.json()["reason"] == "overload")  # the first may have waited before it
    problem = answer.json()
    assert (problem["status"], problem["database"]) == (503, "default")
    assert problem["safe_to_retry"] is True
    assert "nothing was executed; safe to retry" in problem["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"


async def test_who_needs_no_database_notices_nothing(db: Database) -> None:
    with serve(make_app(db)) as url:
        async with client_of(url) as client:
            for path in ("/ping", "/live"):
                assert (await client.get(path)).status_code == 200
            async with overloaded(client, db):
                answers = [await client.get(path) for path in ("/ping", "/live") * 20]
    assert {answer.status_code for answer in answers} == {200}


async def test_ready_says_no_while_overloaded_and_yes_again_soon(db: Database) -> None:
    with serve(make_app(db)) as url:
        async with client_of(url) as client:
            assert (await client.get("/ready")).json() == {"status": "ready", "databases": {"default": "ready"}}
            async with overloaded(client, db):
                answer = await client.get("/ready")
                assert answer.status_code == 503
                assert answer.json() == {"status": "not ready", "databases": {"default": "overloaded"}}
            async with asyncio.timeout(2):
                while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110  # a probe asks again
                    await asyncio.sleep(0.05)


async def test_ready_says_no_where_the_database_does_not_answer() -> None:
    db = Database("postgresql+asyncpg://headgate@127.0.0.1:1/nowhere")
    app = FastAPI()
    install(app, db, check_on_startup=False)
    app.include_router(health_router())
    with serve(app) as url:
        async with client_of(url) as client:
            answer = await client.get("/ready")
            assert answer.status_code == 503
            assert answer.json()["databases"] == {"default": "disconnected"}
            assert (await client.get("/live")).status_code == 200


async def test_the_high_lane_goes_before_everybody(db: Database) -> None:
    with serve(make_app(db)) as url:
        async with client_of(url) as client, overloaded(client, db):
            answers = [await client.get("/sign-in") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}


async def test_the_reserve_is_had_even_if_everything_else_is_held(postgres_url: URL) -> None:
    db = Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=2, reserve=1, max_wait=0.05)
    app = make_app(db)
    with serve(app) as url:
        async with client_of(url) as client, db.async_session() as holder:
            await holder.pin()
            assert (await client.get("/rows/1")).status_code == 503
            for _ in range(5):
                assert (await client.get("/sign-in")).status_code == 200
    statistics = db.gate.statistics()
    assert (statistics.in_use, statistics.pending) == (0, 0)
    await db.dispose_async()


async def test_a_request_is_admitted_once(db: Database) -> None:
    """Its later leases go before all newcomers: what has begun is finished."""
    with serve(make_app(db)) as url:
        async with client_of(url) as client, overloaded(client, db, "/steps") as load:
            await asyncio.sleep(1.5)
    assert load.statuses[200] >= 10
    assert all(answer.json()["safe_to_retry"] for answer in load.answers if answer.status_code == 503)


async def test_sync_endpoints_are_protected_alike(db: Database) -> None:
    with serve(make_app(db)) as url:
        async with client_of(url) as client, overloaded(client, db, "/sync") as load:
            await asyncio.sleep(1.5)
            began = time.monotonic()
            assert (await client.get("/ping")).status_code == 200
            assert time.monotonic() - began < 1
    assert load.statuses[200] >= 20
    assert set(load.statuses) == {200, 503}


async def test_who_comes_too_late_is_not_kept_waiting(postgres_url: URL) -> None:
    db = Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=1, max_wait=10)
    with serve(make_app(db)) as url:
        async with client_of(url) as client, db.async_session() as holder:
            await holder.pin()
            began = time.monotonic()
            answer = await client.get("/hasty")
            took = time.monotonic() - began
    assert (answer.status_code, answer.json()["reason"]) == (503, "deadline")
    assert took < 2
    await db.dispose_async()


async def test_status_and_header_are_options(postgres_url: URL) -> None:
    db = Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=1, max_wait=0.05)
    with serve(make_app(db, refusals=RefusalOptions(status=429, header="X-Come-Again"))) as url:
        async with client_of(url) as client, db.async_session() as holder:
            await holder.pin()
            answer = await client.get("/rows/1")
    assert answer.status_code == 429
    assert int(answer.headers["x-come-again"]) >= 1
    assert "retry-after" not in answer.headers
    await db.dispose_async()


def test_a_full_pool_of_the_apps_own_is_a_refusal_too(postgres_url: URL) -> None:
    foreign = create_engine(
        postgres_url.set(drivername="postgresql+psycopg"), pool_size=1, max_overflow=0, pool_timeout=0.05
    )
    app = make_app(Database(postgres_url.set(drivername="postgresql+asyncpg")))

    @app.get("/foreign")
    def use_foreign() -> str:
        with Session(foreign) as session:
            session.execute(text("SELECT 1"))
        return "done"

    with serve(app) as url, foreign.connect():
        answer = httpx.get(f"{url}/foreign")
    assert (answer.status_code, answer.json()["reason"]) == (503, "pool")
    assert answer.json()["safe_to_retry"] is False
    assert int(answer.headers["retry-after"]) >= 1
    foreign.dispose()
    assert issubclass(PoolTimeoutError, Exception)


@pytest.fixture
def held(postgres_url: URL) -> Iterator[Database]:
    """A database whose only ordinary connection is held."""
    db = Database(postgres_url, connections=2, reserve=1, max_wait=0.02)
    with db.session() as holder:
        holder.pin()
        yield db
    db.dispose()


def test_a_job_chooses_its_lane(held: Database) -> None:
    with held.session() as session, pytest.raises(PoolTimeoutError):
        session.execute(text("SELECT 1"))
    with lane("high"), held.session() as session:
        assert session.scalar(text("SELECT 1")) == 1


def test_an_unknown_lane_is_named() -> None:
    with pytest.raises(ConfigError, match="lane 'fast' cannot work: use one of 'high', 'normal', 'low'"):
        Lane("fast")  # type: ignore[arg-type]


def test_the_heap_is_frozen_while_the_app_lives(db: Database) -> None:
    before = gc.get_freeze_count()
    with serve(make_app(db)):
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == before == 0
