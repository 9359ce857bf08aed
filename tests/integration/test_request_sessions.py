"""When a request's session begins and ends, whatever happens in between."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.orm import Session as StockSession

from headgate import Database, lane
from headgate.admission import current_admission
from headgate.config import DeadlineOptions, RefusalOptions
from headgate.fastapi import AsyncSessionDep, SessionDep, TransactionDep, get_session, install

from .serving import serve

COUNT = text("UPDATE account SET failed = failed + 1 WHERE id = 1")


class RefusedError(Exception):
    """What an endpoint raises, and the app's own handler answers."""


@pytest.fixture
def account(postgres_url: URL) -> Iterator[Engine]:
    """Another client of the database, with one row that requests lock."""
    engine = create_engine(postgres_url.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS account"))
        connection.execute(text("CREATE TABLE account (id int PRIMARY KEY, failed int, seen timestamptz)"))
        connection.execute(text("INSERT INTO account VALUES (1, 0, NULL)"))
    yield engine
    engine.dispose()


@pytest.fixture
def db(postgres_url: URL, account: Engine) -> Database:
    return Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=3, max_wait=5)


def make_app(db: Database, **options: Any) -> FastAPI:
    app = FastAPI()
    install(app, db, **options)
    return app


def test_a_failed_requests_session_is_rolled_back_before_its_exception_is_handled(db: Database) -> None:
    """As with a generator dependency: the handler's own session would wait for the request's locks for ever."""
    app = make_app(db)

    @app.exception_handler(RefusedError)
    async def count_failure(request: object, error: Exception) -> JSONResponse:
        async with db.async_transaction() as session:
            await session.execute(text("SET LOCAL lock_timeout = '2s'"))
            await session.execute(COUNT)
        return JSONResponse({}, 401)

    @app.get("/async")
    async def fail(session: AsyncSessionDep) -> None:
        await session.execute(text("UPDATE account SET seen = now() WHERE id = 1"))
        raise RefusedError

    @app.get("/sync")
    def fail_in_thread(session: SessionDep) -> None:
        session.execute(text("UPDATE account SET seen = now() WHERE id = 1"))
        raise RefusedError

    with serve(app) as url:
        assert [httpx.get(f"{url}/{kind}", timeout=20).status_code for kind in ("async", "sync")] == [401, 401]
    assert db.gate.statistics().in_use == 0


async def test_a_refusal_waits_for_no_thread(postgres_url: URL) -> None:
    db = Database(postgres_url.set(drivername="postgresql+asyncpg"), connections=1, max_wait=0.05)
    app, goes_on = make_app(db), threading.Event()

    @app.get("/blocks")
    def block() -> None:
        goes_on.wait(10)

    @app.get("/reads")
    async def read(session: AsyncSessionDep) -> None:
        await session.execute(text("SELECT 1"))

    with serve(app) as url:
        async with httpx.AsyncClient(base_url=url, timeout=20, limits=httpx.Limits()) as client:
            async with db.async_session() as holder:
                await holder.pin()
                blocked = [asyncio.create_task(client.get("/blocks")) for _ in range(50)]
                await asyncio.sleep(0.5)
                began = time.monotonic()
                assert (await client.get("/reads")).status_code == 503
                assert time.monotonic() - began < 5
                goes_on.set()
            await asyncio.gather(*blocked)
    await db.dispose_async()


def address_of(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rsplit(":", 1)[1])


def test_a_request_sent_ahead_has_a_deadline_of_its_own(db: Database) -> None:
    app = make_app(db, deadlines=DeadlineOptions(seconds=0.5))

    @app.get("/first")
    async def first(session: AsyncSessionDep) -> None:
        await session.execute(text("SELECT 1"))

    @app.get("/second")
    async def second(session: AsyncSessionDep) -> None:
        await session.execute(text("SELECT pg_sleep(20)"))

    ahead = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with serve(app) as url, socket.create_connection(address_of(url), timeout=10) as client:
        client.sendall(ahead)
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200") == 1
    assert b"HTTP/1.1 503" in answers


def test_a_session_of_sqlalchemys_own_can_be_put_in_its_place(db: Database, account: Engine) -> None:
    app = make_app(db)

    @app.post("/count")
    def count(session: TransactionDep) -> None:
        session.execute(COUNT)

    app.dependency_overrides[get_session] = lambda: StockSession(account)
    with serve(app) as url:
        assert httpx.post(f"{url}/count").status_code == 200
    with account.connect() as connection:
        assert connection.scalar(text("SELECT failed FROM account")) == 1


def test_what_a_failed_handler_left_behind_goes_on(db: Database) -> None:
    app, seen, tasks = make_app(db, deadlines=DeadlineOptions(seconds=0.1)), list[object](), list[asyncio.Task[None]]()

    async def write_later() -> None:
        await asyncio.sleep(0.5)
        async with db.async_transaction() as session:
            await session.execute(COUNT)
        seen.append("written")

    @app.get("/")
    async def fail() -> None:
        tasks.append(asyncio.create_task(write_later()))
        await asyncio.sleep(0.2)
        raise RuntimeError("a mistake in the app")

    with serve(app) as url:
        assert httpx.get(url).status_code == 500
        until = time.monotonic() + 5
        while not seen and time.monotonic() < until:
            time.sleep(0.05)
    assert seen == ["written"]


def test_a_sync_session_is_closed_though_its_request_is_cancelled(db: Database) -> None:
    app = make_app(db)

    class Impatient:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return
            with anyio.move_on_after(0.3):
                await self.app(scope, receive, send)
                return
            await JSONResponse({}, 504)(scope, receive, send)

    @app.get("/")
    async def dawdle(session: SessionDep) -> None:
        await anyio.to_thread.run_sync(session.execute, COUNT)
        await asyncio.sleep(5)

    app.add_middleware(Impatient)
    with serve(app) as url:
        for _ in range(3):
            assert httpx.get(url, timeout=10).status_code == 504
            assert db.gate.statistics().in_use == 0


def test_each_database_of_an_app_has_its_own_deadlines_and_refusals(db: Database, postgres_url: URL) -> None:
    reports = Database(postgres_url.set(drivername="postgresql+asyncpg"), name="reports")
    app = make_app(db, deadlines=DeadlineOptions(seconds=0.3), refusals=RefusalOptions(status=429))
    install(app, reports)

    @app.get("/")
    async def dawdle(session: AsyncSessionDep) -> None:
        await session.execute(text("SELECT pg_sleep(20)"))

    with serve(app) as url:
        assert httpx.get(url, timeout=10).status_code == 429


def test_a_block_in_a_sync_endpoint_waits_in_a_thread_that_is_not_counted(db: Database) -> None:
    app = make_app(db)

    @app.get("/")
    def work(session: SessionDep) -> float:
        with lane("low"):
            admission = current_admission.get()
            assert admission is not None
            return 1.0 if admission.threads is not None else 0.0

    with serve(app) as url:
        assert httpx.get(url).json() == 1.0


def test_what_follows_a_stream_is_done_though_its_client_has_gone(db: Database, account: Engine) -> None:
    app, done = make_app(db), threading.Event()

    async def account_for() -> None:
        async with db.async_transaction() as session:
            await session.execute(COUNT)
        done.set()

    @app.get("/")
    async def stream(session: AsyncSessionDep) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            try:
                while True:
                    await session.execute(text("SELECT 1"))
                    yield "part\n"
                    await asyncio.sleep(0.05)
            finally:
                with anyio.CancelScope(shield=True):
                    await account_for()

        return StreamingResponse(parts())

    with serve(app) as url:
        with httpx.stream("GET", url) as response:
            next(response.iter_text())
            time.sleep(0.4)  # it is old by now, and somebody listens for its client
        assert done.wait(5)
    with account.connect() as connection:
        assert connection.scalar(text("SELECT failed FROM account")) == 1
