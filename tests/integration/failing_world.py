"""Async engines that lease, and the question whether all is well with one after something has failed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from headgate import AsyncLeasePool, Database
from headgate.gate import Gate

from .interrupting import settle
from .witness import BUSY, PostgresWitness, SqliteWitness, Witness

ASYNC_DRIVERS = ("asyncpg", "psycopg_async", "aiosqlite")
INSERT = text("INSERT INTO deed (id, note) VALUES (:id, :note)")
READ = text("SELECT count(*) FROM deed WHERE id = :id")

LINE_END = "\n"


def named(application: str, driver: str) -> dict[str, Any]:
    """Arguments with which PostgreSQL knows a driver's connections by this name."""
    own = {"application_name": application}
    return {"server_settings": own} if driver == "asyncpg" else own


def database_of(url: URL, driver: str, application: str) -> Database:
    """A budget of two, for both kinds; the async one's driver is the given one."""
    limits: dict[str, Any] = {"pool_size": 2, "max_overflow": 0}
    return Database(
        create_async_engine(
            url.set(drivername=f"postgresql+{driver}"), connect_args=named(application, driver), **limits
        ),
        sync=create_engine(
            url.set(drivername="postgresql+psycopg"), connect_args=named(application, "psycopg"), **limits
        ),
        max_wait=3,
    )


@dataclass(slots=True)
class Deed:
    """One run of a scenario, and what it has been told about its write."""

    name: str
    is_committed: bool = False
    may_commit: bool = True
    kills: bool = False
    rivals: list[AsyncSession] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


@dataclass(slots=True)
class World:
    """A driver, its database, an engine and a witness."""

    driver: str
    url: URL
    application: str
    witness: Witness
    connections: int = 2
    options: dict[str, Any] = field(default_factory=dict)
    engine: AsyncEngine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = self.new_engine()

    def new_engine(self, **more: Any) -> AsyncEngine:
        """Another engine of the same kind, over a gate of its own."""
        arguments: dict[str, Any] = {"pool_size": self.connections, "max_overflow": 0, "pool_timeout": 5}
        if self.driver != "aiosqlite":
            arguments["connect_args"] = named(self.application, self.driver)
        return create_async_engine(self.url, **{**arguments, "poolclass": AsyncLeasePool, **self.options, **more})

    @property
    def is_stock(self) -> bool:
        """True for a control run, over SQLAlchemy's own pool: what fails there too is not ours to answer for."""
        return "poolclass" in self.options

    @property
    def places(self) -> int:
        """How many connections the pool believes to be open."""
        pool = self.engine.sync_engine.pool
        if isinstance(pool, AsyncLeasePool):
            return pool.gate._places
        return pool.checkedin() + pool.checkedout()  # type: ignore[attr-defined,no-any-return]

    @property
    def gate(self) -> Gate:
        """The gate of the engine's pool."""
        pool = self.engine.sync_engine.pool
        assert isinstance(pool, AsyncLeasePool)
        return pool.gate

    def session(self) -> AsyncSession:
        """A stock session."""
        return AsyncSession(self.engine, expire_on_commit=False)

    async def fill(self) -> None:
        """Have every connection of the budget out at once: proves that the budget is whole, leaves all of them idle."""
        async with AsyncExitStack() as stack:
            for _ in range(self.connections):
                connection = await stack.enter_async_context(self.engine.connect())
                await connection.get_raw_connection()
            assert self.is_stock or self.gate.statistics().in_use == self.connections

    async def faults(self, deed: Deed) -> list[str]:
        """Everything that is not as it should be after a scenario; empty if all is well."""
        found = [f"task left behind in {task}" for task in await settle()]
        of_pool = self._faults_of_pool()
        if of_pool:
            gc.collect()
            await settle()
            found += [f"{fault} (and after gc: {self._faults_of_pool() or 'well'})" for fault in of_pool]
        if not deed.kills:  # the pool finds out about idle connections that ended when it is asked for one
            found += await self._faults_of_server()
        found += self._faults_of_write(deed)
        try:
            async with asyncio.timeout(3):
                await self.fill()
        except Exception as error:  # whatever keeps the budget from being used in full is the finding
            found.append(f"budget not whole: {type(error).__name__}: {str(error).partition(LINE_END)[0][:200]}")
        return found + await self._faults_of_server()

    def _faults_of_pool(self) -> list[str]:
        if self.is_stock:
            out = self.engine.sync_engine.pool.checkedout()  # type: ignore[attr-defined]
            return [f"checked out = {out}"] if out else []
        now = self.gate.statistics()
        return [f"{name} = {getattr(now, name)}" for name in ("in_use", "warm", "pending") if getattr(now, name)]

    async def _faults_of_server(self) -> list[str]:
        states = self.witness.states()
        for attempt in range(400):
            if attempt == 200 and gc.isenabled():
                gc.collect()
            places = states.total() if self.is_stock else self.places
            if states.total() == places and not any(states[state] for state in BUSY):
                return []
            await asyncio.sleep(0.005)
            states = self.witness.states()
        return [f"{places} places, but the server has {dict(states)} (also after gc)"]

    def _faults_of_write(self, deed: Deed) -> list[str]:
        there = self.witness.count(deed.name)
        if there > 1:
            return [f"written {there} times"]
        if deed.is_committed and not there:
            return ["acknowledged and lost"]
        return ["written, though never committed"] if there and not deed.may_commit else []

    async def renew(self) -> None:
        """Leave this engine, with whatever is wrong with it, and go on with a new one."""
        with suppress(Exception):
            await self.engine.dispose()
        gc.collect()
        await settle()
        if isinstance(self.witness, PostgresWitness):
            self.witness.kill()
        self.engine = self.new_engine()

    async def close(self) -> None:
        """End everything."""
        await self.engine.dispose()
        left = await settle()
        assert not left, left


@asynccontextmanager
async def world_of(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path, application: str, **options: Any
) -> AsyncIterator[World]:
    """A world on an async driver; disposed of at the end, when nothing may be left of it."""
    witness: Witness
    if driver == "aiosqlite":
        path = str(tmp_path / "world.db")
        witness = SqliteWitness(path, application)
        url = URL.create("sqlite+aiosqlite", database=path)
    else:
        plain: URL = request.getfixturevalue("postgres_url")
        witness = PostgresWitness(plain, application)
        url = plain.set(drivername=f"postgresql+{driver}")
    connections = options.pop("connections", 2)
    world = World(driver, url, application, witness, connections, options)
    try:
        yield world
    finally:
        await world.close()
        witness.close()
