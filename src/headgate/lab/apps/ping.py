"""The service of the experiment ``ping``: one route that needs no database beside some that count a million rows.

The handlers are plain FastAPI and SQLAlchemy and know nothing of Headgate. Its arms run these very handlers;
only ``make_engines`` differs, by one line for each engine.

There are no response models, as there were none: FastAPI validates a sync handler's response in a second visit to
the thread pool, which then queues behind every handler that waits for its first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from sqlalchemy import URL, Engine, NullPool, case, create_engine, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import headgate
from headgate.lab.results import Stack

DEFAULT_POOL_SIZE = 5
"""SQLAlchemy's own; what ``connections`` asks for beyond it is overflow."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an arm decides.

    :ivar path: the SQLite file.
    :ivar connections: bound of each engine's pool; None for a ``NullPool``, which has none.
    :ivar pool_timeout_s: how long a session waits for a connection.
    """

    path: str
    stack: Stack
    connections: int | None
    pool_timeout_s: float
    sleep_s: float


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todo"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    completed_at: Mapped[datetime | None]


STATUS = case((Todo.completed_at.is_(None), "not_completed"), else_="completed")


def create_app(configuration: Mapping[str, Any]) -> FastAPI:
    """Return the service; ``configuration`` has the fields of ``Settings``."""
    settings = Settings(**configuration)
    engine, async_engine = make_engines(settings)
    app = FastAPI()
    add_ping_routes(app, settings.sleep_s)
    add_count_routes(app, engine, async_engine)
    return app


def make_engines(settings: Settings) -> tuple[Engine, AsyncEngine]:
    """Return engines with the pools that ``settings`` ask for, leased in Headgate's arms."""
    pool = pool_options(settings)
    engine = create_engine(URL.create("sqlite", database=settings.path), **pool)
    async_engine = create_async_engine(URL.create("sqlite+aiosqlite", database=settings.path), **pool)
    if settings.stack == "headgate":
        headgate.lease(engine)
        headgate.lease(async_engine)
    return engine, async_engine


def pool_options(settings: Settings) -> dict[str, Any]:
    """Return what ``create_engine`` is told about the pool; 15 connections are SQLAlchemy's default 5 + 10."""
    if settings.connections is None:
        return {"poolclass": NullPool}
    size = min(DEFAULT_POOL_SIZE, settings.connections)
    return {
        "pool_size": size,
        "max_overflow": settings.connections - size,
        "pool_timeout": settings.pool_timeout_s,
    }


def add_ping_routes(app: FastAPI, sleep_s: float) -> None:
    @app.get("/ping", response_model=None)
    async def ping() -> dict[str, str]:
        return {"ping": "pong"}

    @app.get("/ping-with-async-sleep", response_model=None)
    async def ping_with_async_sleep() -> dict[str, str]:
        await asyncio.sleep(sleep_s)
        return {"ping": "pong"}


def add_count_routes(app: FastAPI, engine: Engine, async_engine: AsyncEngine) -> None:
    @app.get("/count-todos-async", response_model=None)
    async def count_todos_async() -> dict[str, int]:
        async with AsyncSession(async_engine) as session:
            rows = await session.execute(select(STATUS, func.count()).group_by(STATUS))
            return dict(rows.all())

    @app.get("/count-todos-sync", response_model=None)
    def count_todos_sync() -> dict[str, int]:
        with Session(engine) as session:
            rows = session.execute(select(STATUS, func.count()).group_by(STATUS))
            return dict(rows.all())
