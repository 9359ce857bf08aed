"""The arms of a case: the bare driver, SQLAlchemy's floor, stock SQLAlchemy, Headgate, opened and closed together."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
from interleaved import Arm
from lease_work import ROWS, Account, AsyncOrm, AsyncWork, BareAsyncpg, BareSqlite, Base, SyncOrm, SyncWork
from sqlalchemy import URL, create_engine, insert
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

import headgate

BARE, FLOOR, STOCK, OURS = "bare", "floor", "stock", "headgate"

CONNECTIONS = 15
"""Of the bare pool, as of a stock pool with its overflow and of a ``Database``."""

FLOOR_OPTIONS = {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True, "pool_reset_on_return": None}
"""A stock session in one round trip a statement: its time is SQLAlchemy's own, and what ours takes above it is ours."""

FLOOR_WORKS = ("read_one", "read_three")

Options = Mapping[str, Any] | None
"""Of the app's own engine; None for a ``Database``."""


# async: all arms of a case on one event loop, which runs only while one of them has its turn


@contextmanager
def open_async(
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
    url: URL,
    bare: type | None,
    work: str,
    options: Options,
    *,
    concurrency: int = 1,
) -> Iterator[Mapping[str, Arm]]:
    with asyncio.Runner(loop_factory=loop_factory) as runner, ExitStack() as stack:
        orms = _async_orms(runner, stack, url, work, options)
        workers = orms if bare is None else {BARE: _bare_async(runner, stack, url, bare), **orms}
        time_work = partial(_time_tasks, concurrency) if concurrency > 1 else _time_async
        yield {name: _on_loop(runner, time_work, getattr(worker, work)) for name, worker in workers.items()}


def _on_loop(runner: asyncio.Runner, time_work: Callable[..., Any], operation: AsyncWork) -> Arm:
    return lambda count: runner.run(time_work(operation, count))


async def _time_async(operation: AsyncWork, count: int) -> int:
    started_ns = time.perf_counter_ns()
    for index in range(count):
        await operation(index)
    return time.perf_counter_ns() - started_ns


async def _time_tasks(concurrency: int, operation: AsyncWork, count: int) -> int:
    started_ns = time.perf_counter_ns()
    for first in range(0, count, concurrency):
        await asyncio.gather(*map(operation, range(first, first + concurrency)))
    return time.perf_counter_ns() - started_ns


def _async_orms(runner: asyncio.Runner, stack: ExitStack, url: URL, work: str, options: Options) -> dict[str, Any]:
    def orm_of(engine: AsyncEngine) -> AsyncOrm:
        stack.callback(lambda: runner.run(engine.dispose()))
        return AsyncOrm(async_sessionmaker(engine, expire_on_commit=False))

    orms = {}
    if work in FLOOR_WORKS and url.get_backend_name() == "postgresql":
        orms[FLOOR] = orm_of(create_async_engine(url, **FLOOR_OPTIONS))
    orms[STOCK] = orm_of(create_async_engine(url, **(options or {})))
    if options is not None:
        orms[OURS] = orm_of(headgate.lease(create_async_engine(url, **options)))
        return orms
    database = headgate.Database(url)
    stack.callback(lambda: runner.run(database.dispose_async()))
    return {**orms, OURS: AsyncOrm(database.async_session)}


def _bare_async(runner: asyncio.Runner, stack: ExitStack, url: URL, bare: type) -> Any:
    connection: Any = runner.run(_open_asyncpg(url) if bare is BareAsyncpg else _open_psycopg(url))
    stack.callback(lambda: runner.run(connection.close()))
    return bare(connection)


async def _open_asyncpg(url: URL) -> asyncpg.Pool[Any]:
    return await asyncpg.create_pool(libpq(url), min_size=CONNECTIONS, max_size=CONNECTIONS)


async def _open_psycopg(url: URL) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(libpq(url), autocommit=True)


# sync


@contextmanager
def open_sync(url: URL, bare: type, work: str, options: Options) -> Iterator[Mapping[str, Arm]]:
    with ExitStack() as stack:
        workers = {BARE: _bare_sync(stack, url, bare), **_sync_orms(stack, url, work, options)}
        yield {name: partial(_time_sync, getattr(worker, work)) for name, worker in workers.items()}


def _time_sync(operation: SyncWork, count: int) -> int:
    started_ns = time.perf_counter_ns()
    for index in range(count):
        operation(index)
    return time.perf_counter_ns() - started_ns


def _sync_orms(stack: ExitStack, url: URL, work: str, options: Options) -> dict[str, Any]:
    def orm_of(**engine_options: Any) -> SyncOrm:
        engine = create_engine(url, **engine_options)
        stack.callback(engine.dispose)
        return SyncOrm(sessionmaker(engine, expire_on_commit=False))

    orms = {}
    if work in FLOOR_WORKS and url.get_backend_name() == "postgresql":
        orms[FLOOR] = orm_of(**FLOOR_OPTIONS)
    orms[STOCK] = orm_of(**(options or {}))
    if options is not None:
        engine = headgate.lease(create_engine(url, **options))
        stack.callback(engine.dispose)
        return {**orms, OURS: SyncOrm(sessionmaker(engine, expire_on_commit=False))}
    database = headgate.Database(url)
    stack.callback(database.dispose)
    return {**orms, OURS: SyncOrm(database.session)}


def _bare_sync(stack: ExitStack, url: URL, bare: type) -> Any:
    connection: Any
    if bare is BareSqlite:
        connection = sqlite3.connect(str(url.database))
    else:
        connection = psycopg.connect(libpq(url), autocommit=True)
    stack.callback(connection.close)
    return bare(connection)


# rows


def libpq(url: URL) -> str:
    """A URL as the drivers themselves read it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def fill(url: URL) -> None:
    """Make the table."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Account), [{"owner": f"owner {n}", "balance": n} for n in range(ROWS)])
    engine.dispose()


def sqlite_url(directory: Path) -> URL:
    return URL.create("sqlite+pysqlite", database=str(directory / "accounts.sqlite"))
