"""A service for several uvicorn workers: stock routes straight to the server, leased ones through PgBouncer.

The databases are those of the documentation: its Python is executed, with another address.
"""

# Without ``from __future__ import annotations``: FastAPI would not find the dependencies, which are local variables.

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from sqlalchemy import ARRAY, ForeignKey, Text, create_engine, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from headgate import Database
from headgate.fastapi import async_session_dep, install, session_dep

from .documented import DOCUMENTED_ADDRESS, documented

SERVER, POOLER = "TEST_SERVER_URL", "TEST_POOLER_URL"
"""Environment variables: where stock connects, and where the leased routes do."""

MAX_WAIT_S = 20

PAUSE_S = 0.01
"""What a handler does between two statements, so that others come in between."""


class Base(DeclarativeBase):
    pass


class Mood(Enum):
    """An enum of the server's own, which a driver has to ask about."""

    CALM = "calm"
    BUSY = "busy"


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[Mood]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB)


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)


class Entry(Base):
    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey(Account.id), index=True)


def make_item(number: int) -> dict[str, Any]:
    """An item's columns, all of them following from its number, so that a wrong answer shows."""
    mood = list(Mood)[number % 2]
    return {"id": number, "mood": mood, "tags": [f"t{number}", "x"], "facts": {"number": number}}


def documented_database(driver: str, pooler: URL, *, guard: bool = False) -> Database:
    """The page's ``db`` for a driver, patient enough for a busy machine.

    :param guard: leave it on, so that Headgate has to find out that it must be off.
    """
    address = pooler.set(drivername="postgresql").render_as_string(hide_password=False).removeprefix("postgresql://")
    code = documented("python", title=f"# {driver}").replace(DOCUMENTED_ADDRESS, address)
    assert ", guard=False" in code
    code = code.replace(", guard=False", f", guard={guard}, max_wait={MAX_WAIT_S}")
    names: dict[str, Any] = {
        "Database": Database,
        "create_engine": create_engine,
        "create_async_engine": create_async_engine,
    }
    exec(code, names)
    db: Database = names["db"]
    db.name = driver
    return db


def make_app() -> FastAPI:
    """For uvicorn's ``--factory``."""
    app = FastAPI()
    _add_stock(app, make_url(os.environ[SERVER]))
    for driver in ("asyncpg", "psycopg"):
        db = documented_database(driver, make_url(os.environ[POOLER]))
        install(app, db)
        _add_leased(app, driver)
    _add_sync(app)

    @app.get("/worker")
    async def worker() -> int:
        return os.getpid()

    app.add_exception_handler(SQLAlchemyError, _tell)
    return app


def _tell(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse(f"{type(error).__name__}: {error}", status_code=500)


def _add_stock(app: FastAPI, server: URL) -> None:
    """As FastAPI's and SQLAlchemy's tutorials have it: an engine a worker, a session a request."""
    engines: dict[str, AsyncEngine] = {}

    @asynccontextmanager
    async def session_of(driver: str) -> AsyncIterator[AsyncSession]:
        if driver not in engines:
            url = server.set(drivername=f"postgresql+{driver}")
            engines[driver] = create_async_engine(url, pool_size=15, max_overflow=0, pool_timeout=1)
        async with async_sessionmaker(engines[driver])() as session:
            yield session

    @app.get("/stock/{driver}/items/{number}")
    async def read_item(request: Request, driver: str, number: int) -> Any:
        try:
            async with session_of(driver) as session:
                return await _read_item(session, number)
        except Exception as error:  # SQLAlchemy 2.0 lets asyncpg's own through
            return _tell(request, error)


def _add_leased(app: FastAPI, driver: str) -> None:
    session_dependency = async_session_dep(driver)

    @app.get(f"/{driver}/items/{{number}}")
    async def read_item(number: int, session: session_dependency) -> Any:  # type: ignore[valid-type]
        return await _read_item(session, number)

    @app.post(f"/{driver}/accounts/{{number}}")
    async def deposit(number: int, session: session_dependency) -> Any:  # type: ignore[valid-type]
        account = await session.get_one(Account, number, with_for_update=True)
        session.add(Entry(account_id=number))
        await session.flush()
        await asyncio.sleep(PAUSE_S)
        entries = await session.scalar(_count_entries(number))  # its own, not committed yet, among them
        account.balance += 1
        await session.commit()
        return [entries, await session.scalar(select(Account.balance).where(Account.id == number))]


async def _read_item(session: AsyncSession, number: int) -> Any:
    tags = await session.scalar(select(Item.tags).where(Item.id == number))
    await asyncio.sleep(PAUSE_S)
    item = await session.get_one(Item, number)
    return [tags, item.mood.value, item.facts]


def _add_sync(app: FastAPI) -> None:
    session_dependency = session_dep("psycopg")

    @app.get("/sync/items/{number}")
    def read_item(number: int, session: session_dependency) -> Any:  # type: ignore[valid-type]
        item = session.get_one(Item, number)
        return [item.tags, item.mood.value, item.facts]


def _count_entries(account: int) -> Any:
    return select(func.count()).select_from(Entry).where(Entry.account_id == account)
