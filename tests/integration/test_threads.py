"""Worker threads and connections: those who hold a connection must find a thread to give it back in.

Stock's deadlock is reproduced first: what is shown free of it here must be what it falls into.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import anyio.to_thread
import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from headgate import Database
from headgate.fastapi import SessionDep, install, session_dep

from .serving import serve

THREADS = 40
"""anyio's, and so FastAPI's, by default."""

CONNECTIONS = 15
REQUESTS = 120
POOL_TIMEOUT_S = 1.0

OURS = get_args(SessionDep)[1]

HOLD = text("SELECT pg_advisory_xact_lock_shared(1)")
"""Keeps its connection until the transaction ends, with Headgate too."""


@pytest.fixture
def table(postgres_url: URL) -> Iterator[Engine]:
    """Another client of the database, with one table of visits."""
    engine = create_engine(postgres_url.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS visit"))
        connection.execute(text("CREATE TABLE visit (id serial PRIMARY KEY, name text)"))
    yield engine
    engine.dispose()


def count_visits(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM visit")) or 0


def add_routes(app: FastAPI, user_from: Any, visit_from: Any) -> None:
    """Add the route of a visit; each dependency gives a session, and both may give the same."""

    def current_user(session: Session = user_from) -> str:
        session.execute(HOLD)
        return "buffy"

    @app.post("/visits")
    def visit(session: Session = visit_from, user: str = Depends(current_user)) -> str:
        session.execute(text("INSERT INTO visit (name) VALUES (:name)"), {"name": user})
        session.commit()
        return user


async def ask(url: str, path: str, times: int) -> Counter[int]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        answers = await asyncio.gather(*(client.post(path) for _ in range(times)))
    return Counter(answer.status_code for answer in answers)


def test_stock_threads_wait_for_each_other_until_the_pool_gives_up(postgres_url: URL, table: Engine) -> None:
    engine = create_engine(postgres_url.set(drivername="postgresql+psycopg"), pool_timeout=POOL_TIMEOUT_S)
    sessions = sessionmaker(engine)

    def get_session() -> Iterator[Session]:
        with sessions() as session:
            yield session

    app = FastAPI()
    from_stock = Depends(get_session)
    add_routes(app, from_stock, from_stock)
    with serve(app) as url:
        statuses = asyncio.run(ask(url, "/visits", REQUESTS))
    assert statuses[500] > 0, "forty threads wait for fifteen connections whose holders wait for a thread"
    engine.dispose()


def test_who_holds_a_connection_finds_a_thread(postgres_url: URL, table: Engine) -> None:
    db = Database(postgres_url, connections=CONNECTIONS, max_wait=10)
    app = FastAPI()
    install(app, db)
    add_routes(app, OURS, OURS)
    with serve(app) as url:
        statuses = asyncio.run(ask(url, "/visits", REQUESTS))
        assert statuses == {200: REQUESTS}
        assert httpx.post(f"{url}/visits").status_code == 200
    assert count_visits(table) == REQUESTS + 1
    assert db.gate.statistics().in_use == 0


def test_two_acquiring_dependencies_of_two_databases(postgres_url: URL, table: Engine) -> None:
    """Each request holds a connection of one budget while it waits for one of the other."""
    app = FastAPI()
    databases = [Database(postgres_url, name=name, connections=CONNECTIONS, max_wait=10) for name in ("default", "log")]
    for db in databases:
        install(app, db)
    add_routes(app, OURS, get_args(session_dep("log"))[1])
    with serve(app) as url:
        statuses = asyncio.run(ask(url, "/visits", REQUESTS))
    assert statuses == {200: REQUESTS}
    assert count_visits(table) == REQUESTS


def test_lent_threads_are_taken_back(postgres_url: URL, table: Engine) -> None:
    db = Database(postgres_url, connections=2, max_wait=10)
    app = FastAPI()
    install(app, db)
    add_routes(app, OURS, OURS)

    @app.post("/threads")
    async def threads() -> float:
        return anyio.to_thread.current_default_thread_limiter().total_tokens

    with serve(app) as url:
        assert asyncio.run(ask(url, "/visits", REQUESTS)) == {200: REQUESTS}
        assert httpx.post(f"{url}/threads").json() == THREADS
