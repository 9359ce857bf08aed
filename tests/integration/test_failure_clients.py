"""Clients that go away, through a real uvicorn: whatever their request was doing, nothing is leaked."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import URL

from headgate import Database
from headgate.fastapi import AsyncSessionDep, AsyncTransactionDep, SessionDep, TransactionDep, install

from .failing_world import INSERT, READ, database_of
from .serving import serve
from .witness import BUSY, PostgresWitness, becomes

_numbers = itertools.count()


@pytest.fixture
def witness(postgres_url: URL) -> Iterator[PostgresWitness]:
    """A name of its own for each test's application."""
    witness = PostgresWitness(postgres_url, f"clients{next(_numbers)}")
    yield witness
    witness.close()


@pytest.fixture(params=["asyncpg", "psycopg"])
def db(request: pytest.FixtureRequest, postgres_url: URL, witness: PostgresWitness) -> Database:
    return database_of(postgres_url, request.param, witness.application)


def app_of(db: Database) -> FastAPI:
    """Endpoints of both kinds that are slow where a client may leave them; each also ends when its client has gone."""
    app = FastAPI()
    install(app, db)

    @app.get("/read")
    async def read(session: AsyncSessionDep, request: Request) -> int:
        return int((await until_gone(request, session.execute(READ, {"id": "x"}))).scalar_one())

    @app.get("/write/{name}")
    async def write(name: str, session: AsyncTransactionDep, request: Request) -> str:
        await until_gone(request, session.execute(INSERT, {"id": name, "note": ""}))
        return name

    @app.get("/read-sync")
    def read_sync(session: SessionDep) -> int:
        return int(session.execute(READ, {"id": "x"}).scalar_one())

    @app.get("/write-sync/{name}")
    def write_sync(name: str, session: TransactionDep) -> str:
        session.execute(INSERT, {"id": name, "note": ""})
        return name

    return app


async def until_gone(request: Request, statement: Any) -> Any:
    """Cancel a statement when the client has gone, as handlers do that care."""
    running = asyncio.ensure_future(statement)
    gone = asyncio.create_task(_wait_until_gone(request))
    gone.add_done_callback(lambda task: None if task.cancelled() else running.cancel())
    try:
        return await running
    finally:
        gone.cancel()


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def locked(witness: PostgresWitness) -> Iterator[None]:
    """Whoever touches the table waits."""
    with witness._connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE deed IN ACCESS EXCLUSIVE MODE")
        yield


def leave(url: str, path: str, after_s: float) -> None:
    """Ask, wait that long, and close the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        time.sleep(after_s)


PATHS = ("/read", "/write/{}", "/read-sync", "/write-sync/{}")


def test_clients_that_leave_leak_nothing(db: Database, witness: PostgresWitness) -> None:
    with serve(app_of(db)) as url:
        assert httpx.get(f"{url}/read").status_code == 200
        # In the middle of a statement, and, as there are more of them than connections, in the gate's line.
        with locked(witness):
            for number in range(24):
                leave(url, PATHS[number % 2 if number < 16 else number % 4].format(f"locked{number}"), 0.01)
            assert becomes(lambda: db.gate.statistics().in_use <= 2)
        # At any moment.
        for number in range(40):
            leave(url, PATHS[number % 4].format(f"left{number}"), number / 8_000)
        assert becomes(lambda: _is_quiet(db, witness)), (db.gate, witness.states())
        answers = [httpx.get(f"{url}{path}").status_code for path in ("/read", "/write/there", "/read-sync")]
        assert answers == [200, 200, 200]
        assert becomes(lambda: _is_quiet(db, witness)), (db.gate, witness.states())
        assert db.gate.statistics().pending == 0
        assert witness.count("there") == 1
        assert set(witness.all_deeds().values()) == {1}
        witness.ask("TRUNCATE deed")
        db.dispose()
    assert becomes(lambda: not witness.states()), witness.states()


def _is_quiet(db: Database, witness: PostgresWitness) -> bool:
    now, states = db.gate.statistics(), witness.states()
    return (now.in_use, now.warm, now.pending) == (0, 0, 0) and not any(states[state] for state in BUSY)
