"""One suite over sync and async, over every driver: a test's body is sync code that gets a session or connection.

For the async drivers the body runs under ``run_sync``, as SQLAlchemy's own async tests do.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from headgate import AsyncLeasePool, LeasePool

POSTGRESQL = ("psycopg", "psycopg_async", "asyncpg")
SQLITE = ("pysqlite", "aiosqlite")
DRIVERS = (*POSTGRESQL, *SQLITE)
ResultT = TypeVar("ResultT")
_numbers = itertools.count()


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Arena:
    """A driver, its database, and engines that lease from it."""

    def __init__(self, driver: str, url: URL) -> None:
        self.driver = driver
        self.is_async = driver in ("psycopg_async", "asyncpg", "aiosqlite")
        self.is_postgresql = driver in POSTGRESQL
        family = "postgresql" if self.is_postgresql else "sqlite"
        self.url = url.set(drivername=f"{family}+{driver}")
        sync_driver = "psycopg" if self.is_postgresql else "pysqlite"
        self.observer = create_engine(url.set(drivername=f"{family}+{sync_driver}"), poolclass=NullPool)
        self.runner = asyncio.Runner()
        self._made: list[Engine | AsyncEngine] = []
        self.application = f"arena{next(_numbers)}"

    def make(self, **options: Any) -> Engine:
        """A leasing engine (for the async drivers: the sync engine inside)."""
        options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 5, **options}
        if self.is_async:
            engine = create_async_engine(self.url, poolclass=AsyncLeasePool, **options)
            self._made.append(engine)
            made = engine.sync_engine
        else:
            made = create_engine(self.url, poolclass=LeasePool, **options)
            self._made.append(made)
        if self.is_postgresql:

            @event.listens_for(made, "connect")
            def name_it(dbapi: Any, record: Any) -> None:
                cursor = dbapi.cursor()
                cursor.execute(f"SET application_name = '{self.application}'")
                cursor.close()
                dbapi.commit()

        return made

    def run(self, body: Callable[[], ResultT]) -> ResultT:
        """Run code that may do I/O on the engines."""
        if not self.is_async:
            return body()

        async def main() -> ResultT:
            async with AsyncSession() as session:
                return await session.run_sync(lambda _: body())

        return self.runner.run(main())

    def play(self, body: Callable[[Session], ResultT], engine: Engine | None = None, **options: Any) -> ResultT:
        """Run a body with a stock session over a leasing engine."""
        bound = engine or self.make()

        def inside() -> ResultT:
            with Session(bound, **options) as session:
                return body(session)

        return self.run(inside)

    def connected(self, body: Callable[[Connection], ResultT], engine: Engine | None = None) -> ResultT:
        """Run a body with a stock Core connection over a leasing engine."""
        bound = engine or self.make()

        def inside() -> ResultT:
            with bound.connect() as connection:
                return body(connection)

        return self.run(inside)

    def states(self) -> dict[str, int]:
        """What the server says of this arena's connections: state → count."""
        query = text("SELECT state, count(*) AS count_ FROM pg_stat_activity WHERE application_name = :name GROUP BY 1")
        with self.observer.connect() as connection:
            return {row.state: row.count_ for row in connection.execute(query, {"name": self.application})}

    def names(self) -> list[str]:
        """What another connection sees in the table."""
        with self.observer.connect() as connection:
            return list(connection.execute(text("SELECT name FROM item ORDER BY id")).scalars())

    def other(self, statement: str) -> None:
        """Run and commit a statement on another connection."""
        with self.observer.begin() as connection:
            connection.execute(text(statement))

    def close(self) -> None:
        """End everything; nothing may still be leased."""
        gates = [made.pool.gate for made in self._made if isinstance(made.pool, LeasePool | AsyncLeasePool)]
        held = [repr(gate) for gate in gates if gate.statistics().in_use]
        for made in self._made:
            if isinstance(made, AsyncEngine):
                self.runner.run(made.dispose())
            else:
                made.dispose()
        self.runner.close()
        self.observer.dispose()
        assert held == [], "leases left behind"
        assert [repr(gate) for gate in gates if gate.statistics().idle] == [], "places left behind"


WHERE = {
    "on_postgresql": POSTGRESQL,
    "on_sqlite": SQLITE,
    "on_sync": ("psycopg", "pysqlite"),
    "arena": DRIVERS,
}
"""Fixture → the drivers a test that asks for it runs on; the narrowest comes first."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on the drivers its fixture stands for."""
    for fixture, drivers in WHERE.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize("driver", drivers)
            return


@pytest.fixture
def arena(driver: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    """A table ``item`` with three rows, and engines that lease."""
    if driver in POSTGRESQL:
        url = request.getfixturevalue("postgres_url")
    else:
        url = URL.create("sqlite", database=str(tmp_path / "arena.db"))
    arena = Arena(driver, url)
    with arena.observer.begin() as connection:
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
        connection.exec_driver_sql("INSERT INTO item (id, name) VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    yield arena
    arena.close()


@pytest.fixture
def on_postgresql(arena: Arena) -> Arena:
    """The arena, for what only PostgreSQL has."""
    return arena


@pytest.fixture
def on_sqlite(arena: Arena) -> Arena:
    """The arena, for what only SQLite has."""
    return arena


@pytest.fixture
def on_sync(arena: Arena) -> Arena:
    """The arena, for what only the sync drivers do."""
    return arena
