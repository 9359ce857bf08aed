"""The service of the experiment ``overload``: four routes that need the database, and ``/ping``, which does not.

The handlers are plain FastAPI and SQLAlchemy and know nothing of Headgate; the arms run these very handlers. What
differs is where their session comes from: stock's own dependency or ``AsyncSessionDep``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from fastapi import Depends, FastAPI, Request
from sqlalchemy import Integer, cast, func, make_url, select, update
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

import headgate
from headgate.fastapi import AsyncSessionDep, install
from headgate.lab.results import Stack

SLEEP_S = 0.05
"""What the server sleeps in a read, and what a handler awaits between two reads."""

COUNTED = 300_000
"""Numbers one CPU-bound query adds up: some 25 ms of a core, beside which the rest of a request is little."""

LOCKED_S = 0.01
"""How long a transaction keeps its row locked."""

READS = 3
ROW = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What an arm decides.

    :ivar url: of the database, without a driver.
    :ivar pool_timeout_s: how long a session waits for a connection of stock's pool; 30 s is SQLAlchemy's default.
    :ivar refuses: stock's pool timeout is answered with 503 and not with 500.
    :ivar semaphore_wait_s: requests that need the database pass a semaphore of as many places as the pool has
        connections, and are answered with 503 if they wait longer than this; None for no semaphore.
    """

    url: str
    stack: Stack
    pool_timeout_s: float = 30.0
    refuses: bool = False
    semaphore_wait_s: float | None = None


CONNECTIONS = 15


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


def create_app(configuration: Mapping[str, Any]) -> FastAPI:
    """Return the service; ``configuration`` has the fields of ``Settings``."""
    settings = Settings(**configuration)
    app = FastAPI()
    url = make_url(settings.url)
    if settings.stack == "headgate":
        install(app, headgate.Database(url))
        add_routes(app, get_args(AsyncSessionDep)[1])
    else:
        engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), pool_timeout=settings.pool_timeout_s)
        add_routes(app, Depends(stock_session(async_sessionmaker(engine), settings.semaphore_wait_s)))
        if settings.refuses:
            app.add_exception_handler(PoolTimeoutError, refuse)
    return app


def stock_session(
    sessions: async_sessionmaker[AsyncSession], wait_s: float | None
) -> Callable[[], AsyncGenerator[AsyncSession]]:
    """Return the dependency that everybody writes, behind a semaphore if it has a wait."""

    async def get_session() -> AsyncGenerator[AsyncSession]:
        async with sessions() as session:
            yield session

    if wait_s is None:
        return get_session
    semaphore = asyncio.Semaphore(CONNECTIONS)

    async def get_session_in_turn() -> AsyncGenerator[AsyncSession]:
        try:
            async with asyncio.timeout(wait_s):
                await semaphore.acquire()
        except TimeoutError:
            raise HTTPException(503, "busy", {"Retry-After": "1"}) from None
        try:
            async with sessions() as session:
                yield session
        finally:
            semaphore.release()

    return get_session_in_turn


def refuse(request: Request, error: Exception) -> Response:
    """Answer a request that got no connection, as the honest rival does."""
    return JSONResponse({"detail": "busy"}, status_code=503, headers={"Retry-After": "1"})


def add_routes(app: FastAPI, session_from: Any) -> None:
    """Add all routes; ``session_from`` is the dependency that gives them their session."""

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"ping": "pong"}

    def add(path: str, work: Callable[[AsyncSession], Awaitable[None]]) -> None:
        @app.get(path)
        async def endpoint(session: AsyncSession = session_from) -> dict[str, bool]:
            await work(session)
            return {"done": True}

    add("/sleep", sleep)
    add("/compute", compute)
    add("/update", update_row)
    add("/three-reads", read_three_times)


async def sleep(session: AsyncSession) -> None:
    """Read something that the server waits for, and no processor works on."""
    await session.execute(select(func.pg_sleep(SLEEP_S)))


async def compute(session: AsyncSession) -> None:
    """Read something that keeps one of the server's cores busy."""
    numbers = func.generate_series(1, COUNTED).alias("n")
    await session.execute(select(func.sum(cast(numbers.column, Integer) % 7)))


async def update_row(session: AsyncSession) -> None:
    """Change a row that everybody changes, and keep it locked for a moment."""
    await session.execute(update(Counter).where(Counter.id == ROW).values(value=Counter.value + 1))
    await session.execute(select(func.pg_sleep(LOCKED_S)))
    await session.commit()


async def read_three_times(session: AsyncSession) -> None:
    """Read, wait for somebody else, read, wait, read: stock holds its connection all the time."""
    for turn in range(READS):
        if turn:
            await asyncio.sleep(SLEEP_S)
        await session.execute(select(func.pg_sleep(SLEEP_S)))
