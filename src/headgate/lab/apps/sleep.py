"""The service of the experiment ``sleep``: a handler reads one row and sleeps, inside or outside its session.

The handlers are plain FastAPI and SQLAlchemy and know nothing of Headgate. Its arms run these very handlers;
only ``make_engines`` differs, by one line for each engine.

There are no response models, as there were none: FastAPI validates a sync handler's response in a second visit to
the thread pool, which then queues behind every handler that waits for its first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import headgate
from headgate.lab.results import Stack


@dataclass(frozen=True, slots=True)
class Settings:
    """What an arm decides.

    :ivar url: of the database, without a driver.
    :ivar pool_timeout_s: how long a session waits for a connection; 30 s is SQLAlchemy's default.
    """

    url: str
    stack: Stack
    sleep_s: float
    pool_timeout_s: float


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def create_app(configuration: Mapping[str, Any]) -> FastAPI:
    """Return the service; ``configuration`` has the fields of ``Settings``."""
    settings = Settings(**configuration)
    engine, async_engine = make_engines(settings)
    app = FastAPI()
    add_sync_routes(app, engine, settings.sleep_s)
    add_async_routes(app, async_engine, settings.sleep_s)
    return app


def make_engines(settings: Settings) -> tuple[Engine, AsyncEngine]:
    """Return engines with SQLAlchemy's default pools (5 + 10), leased in Headgate's arms."""
    url = make_url(settings.url)
    timeout_s = settings.pool_timeout_s
    engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_timeout=timeout_s)
    async_engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), pool_timeout=timeout_s)
    if settings.stack == "headgate":
        headgate.lease(engine)
        headgate.lease(async_engine)
    return engine, async_engine


def add_sync_routes(app: FastAPI, engine: Engine, sleep_s: float) -> None:
    @app.get("/sync_session_sleep_outside_session", response_model=None)
    def sync_session_sleep_outside_session() -> dict[str, str]:
        with Session(engine) as session:
            user = session.scalars(select(User).order_by(User.id.desc()).limit(1)).one()
        time.sleep(sleep_s)
        return {"name": user.name}

    @app.get("/sync_session_sleep_inside_session", response_model=None)
    def sync_session_sleep_inside_session() -> dict[str, str]:
        with Session(engine) as session:
            user = session.scalars(select(User).order_by(User.id.desc()).limit(1)).one()
            time.sleep(sleep_s)
        return {"name": user.name}


def add_async_routes(app: FastAPI, engine: AsyncEngine, sleep_s: float) -> None:
    @app.get("/async_session_sleep_outside_session", response_model=None)
    async def async_session_sleep_outside_session() -> dict[str, str]:
        async with AsyncSession(engine) as session:
            user = (await session.scalars(select(User).order_by(User.id.desc()).limit(1))).one()
        await asyncio.sleep(sleep_s)
        return {"name": user.name}

    @app.get("/async_session_sleep_inside_session", response_model=None)
    async def async_session_sleep_inside_session() -> dict[str, str]:
        async with AsyncSession(engine) as session:
            user = (await session.scalars(select(User).order_by(User.id.desc()).limit(1))).one()
            await asyncio.sleep(sleep_s)
        return {"name": user.name}
