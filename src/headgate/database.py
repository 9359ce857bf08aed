"""Database: the one object an app makes. It owns the engines, the budget they share, and the sessions."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import QueuePool, StaticPool

from headgate.config import GateOptions, Hook, LeaseOptions, OnPin, budget_of
from headgate.engines import lease
from headgate.errors import ConfigError
from headgate.gate import Gate
from headgate.once import once
from headgate.places import unite
from headgate.pool import AsyncLeasePool, LeasePool
from headgate.sessions import AsyncSession, Session
from headgate.snapshots import see_snapshots
from headgate.testing.joined import pool_behind
from headgate.testing.rolled_back import RolledBack

PSYCOPG = "postgresql+psycopg"
DRIVERS = {
    # what the URL says: (async driver, sync drivers in order of preference)
    "postgresql": (PSYCOPG, (PSYCOPG,)),
    PSYCOPG: (PSYCOPG, (PSYCOPG,)),
    "postgresql+asyncpg": ("postgresql+asyncpg", (PSYCOPG, "postgresql+psycopg2")),
    "sqlite": ("sqlite+aiosqlite", ("sqlite+pysqlite",)),
    "sqlite+pysqlite": ("sqlite+aiosqlite", ("sqlite+pysqlite",)),
    "sqlite+aiosqlite": ("sqlite+aiosqlite", ("sqlite+pysqlite",)),
}
ASYNCPG_ONLY = frozenset(
    {"command_timeout", "prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size"}
)
LIBPQ_WORDS = {"ssl": "sslmode", "timeout": "connect_timeout"}
MODULES = {"psycopg": "psycopg", "psycopg2": "psycopg2", "asyncpg": "asyncpg", "aiosqlite": "aiosqlite"}


class Database:
    """One database of an app: sync and async sessions over one budget of connections.

    :param source: a URL, or an ``Engine`` or ``AsyncEngine`` that has not been used yet.
    :param sync: the ``Engine`` for sync sessions beside an ``AsyncEngine``; made from its URL if not given.
    :param name: how errors, logs and ``session_dep(name)`` call it.
    :param connections: the budget; what the given engine's pool allows, else the default of ``GateOptions``.
    :param max_wait: seconds a request waits for its first connection at most; this option and the next three have their
        defaults in ``GateOptions``.
    :param max_pending: how many may wait at once.
    :param max_stall: seconds a request that has held a connection waits for its next one although nobody gets any.
    :param reserve: connections of the budget that only the high lane may use.
    :param enabled: False gives stock SQLAlchemy behaviour, as does ``HEADGATE=off`` in the environment.
    :param read_functions: SQL functions and types of your own that only read.
    :param strict: raise, instead of one WARNING, if the installed SQLAlchemy cannot be leased from.
    :param guard: PostgreSQL itself refuses to write for what was taken for a read; off where a pooler forbids it.
    :param on_pin: ``"warn"`` or ``"error"`` where a connection is pinned by something else than a write; None says
        nothing.
    :param on_acquire: called with the DBAPI connection, in autocommit, each time a session acquires one; what it
        sends is paid once a lease, under contention once a statement.
    :param on_release: called likewise before a connection goes to another session.
    :raises ConfigError: an option that cannot work; the message names it and the remedy, never the password.
    """

    def __init__(
        self,
        source: str | URL | Engine | AsyncEngine,
        *,
        sync: Engine | None = None,
        name: str = "default",
        connections: int | None = None,
        max_wait: float | None = None,
        max_pending: int | None = None,
        max_stall: float | None = None,
        reserve: int | None = None,
        enabled: bool = True,
        read_functions: Iterable[str] = (),
        strict: bool = False,
        guard: bool = True,
        on_pin: OnPin | None = None,
        on_acquire: Hook | None = None,
        on_release: Hook | None = None,
    ) -> None:
        self.name = name
        if isinstance(read_functions, str):
            raise ConfigError(f"read_functions={read_functions!r} cannot work: give a list, [{read_functions!r}]")
        self._options = LeaseOptions(
            enabled=enabled,
            read_functions=frozenset(read_functions),
            strict=strict,
            guard=guard,
            on_pin=on_pin,
            on_acquire=on_acquire,
            on_release=on_release,
        )
        self._given_async = source if isinstance(source, AsyncEngine) else None
        self._given_sync = source if isinstance(source, Engine) else sync
        given = [engine for engine in (self._given_async, self._given_sync) if engine is not None]
        self.url = given[0].url if given else _parse(source)
        if connections is None and given:
            connections = _allowed_by(given[0])
        options = {
            "connections": connections,
            "max_wait": max_wait,
            "max_pending": max_pending,
            "max_stall": max_stall,
            "reserve": reserve,
        }
        given_options: Any = {option: value for option, value in options.items() if value is not None}
        self._gate_options = GateOptions(**given_options)
        self.gate = Gate(self._gate_options, name=name)
        self._blocks: list[RolledBack] = []
        self._making = threading.RLock()
        if not given:
            _require_driver(self.url, (_async_driver(self.url), *_known(self.url)[1]))

    def __repr__(self) -> str:
        return f"<Database {self.name!r} {_shown(self.url)}>"

    # engines

    @once
    def engine(self) -> Engine:
        """An ordinary SQLAlchemy engine; made when first asked for.

        :raises ConfigError: no sync driver is known for the database or installed, or it lives in the async engine's
            memory.
        """
        if self._given_sync is not None:
            engine = lease(self._given_sync, options=self._options_for(self._given_sync), gate=self.gate)
        else:
            url = self._url_for(_sync_driver(self.url), taken_by="async_engine")
            pool = self._pool_options(url)
            engine = create_engine(url, **(pool or {"poolclass": LeasePool, **self._lease_pool_options()}))
            if pool:
                lease(engine, options=self._options)
        self._unite(engine, self.__dict__.get("async_engine"))
        self._join_blocks(engine)
        return engine

    @once
    def async_engine(self) -> AsyncEngine:
        """An ordinary SQLAlchemy async engine; made when first asked for.

        :raises ConfigError: no async driver is known for the database or installed, or it lives in the sync engine's
            memory.
        """
        if self._given_async is not None:
            engine = lease(self._given_async, options=self._options_for(self._given_async), gate=self.gate)
        else:
            url = self._url_for(_async_driver(self.url), taken_by="engine")
            pool = self._pool_options(url)
            engine = create_async_engine(url, **(pool or {"poolclass": AsyncLeasePool, **self._lease_pool_options()}))
            if pool:
                lease(engine, options=self._options)
        self._unite(self.__dict__.get("engine"), engine)
        self._join_blocks(engine)
        return engine

    def _options_for(self, engine: Engine | AsyncEngine) -> LeaseOptions | None:
        """None if the engine's pool leases already and its own options are not overridden here."""
        leases = isinstance(engine.pool, LeasePool | AsyncLeasePool)
        return None if leases and self._options == LeaseOptions() else self._options

    def _lease_pool_options(self) -> dict[str, object]:
        return {
            "pool_size": self.gate.connections,
            "max_overflow": 0,
            "pool_timeout": self._gate_options.max_wait,
            # The connection used last has the statements of the hour prepared.
            "pool_use_lifo": True,
            "gate": self.gate,
            "lease_options": self._options,
        }

    def _pool_options(self, url: URL) -> dict[str, object] | None:
        """In-memory SQLite lives in one connection, shared by everybody; None for every other database."""
        return {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}} if _is_in_memory(url) else None

    def _url_for(self, driver: str, *, taken_by: str) -> URL:
        url = _translate(self.url, driver)
        _require_driver(url, (driver,))
        if _is_in_memory(url) and taken_by in self.__dict__:
            raise ConfigError(
                f"database {self.name!r}: an in-memory SQLite database lives in one connection, and db.{taken_by} "
                "has it already, so sync and async sessions would see two databases. Use a file."
            )
        return url

    @staticmethod
    def _unite(engine: Engine | None, async_engine: AsyncEngine | None) -> None:
        if engine is None or async_engine is None:
            return
        one, other = pool_behind(engine.pool), pool_behind(async_engine.sync_engine.pool)
        if isinstance(one, LeasePool) and isinstance(other, AsyncLeasePool):
            unite(one, other)

    # sessions

    @once
    def _sessions(self) -> sessionmaker[Session]:
        # A session that somebody goes on using after its request must say so, not lose rows.
        return sessionmaker(self.engine, class_=Session, expire_on_commit=False, close_resets_only=False)

    @once
    def _async_sessions(self) -> async_sessionmaker[AsyncSession]:
        return async_sessionmaker(
            self.async_engine, class_=AsyncSession, expire_on_commit=False, close_resets_only=False
        )

    def session(self, *, snapshot: bool = False) -> Session:
        """A new session, to be used as a context manager; whoever asked commits.

        :param snapshot: one picture for all its reads, until commit, rollback or close: REPEATABLE READ, READ ONLY
            on PostgreSQL, a transaction begun at once on SQLite. It keeps its connection from its first statement on.
        :raises ConfigError: the database cannot give one.
        """
        session = self._sessions()
        return see_snapshots(session) if snapshot else session

    def async_session(self, *, snapshot: bool = False) -> AsyncSession:
        """A new async session, to be used as a context manager; otherwise as ``session``."""
        session = self._async_sessions()
        if snapshot:
            see_snapshots(session.sync_session)
        return session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that is committed at the end of the block and rolled back by an exception."""
        with self.session() as session:
            yield session
            session.commit()

    @asynccontextmanager
    async def async_transaction(self) -> AsyncIterator[AsyncSession]:
        """An async session that is committed at the end of the block and rolled back by an exception."""
        async with self.async_session() as session:
            yield session
            await session.commit()

    # tests

    def rolled_back(self) -> RolledBack:
        """A block for tests, ``with`` or ``async with``: what it does to this database is undone at its end.

        Inside, all sync sessions (and Core connections) share one connection, and all async ones another; a commit
        releases a savepoint. Blocks nest. Sequences keep what they have counted.
        """
        return RolledBack(
            database=self.name,
            engines=self._made_engines,
            blocks=self._blocks,
            max_wait=self._gate_options.max_wait,
            read_functions=self._options.read_functions,
        )

    def _made_engines(self) -> Iterator[Engine | AsyncEngine]:
        return (self.__dict__[name] for name in ("engine", "async_engine") if name in self.__dict__)

    def _join_blocks(self, engine: Engine | AsyncEngine) -> None:
        for block in self._blocks:
            block.join(engine)

    # life

    async def check(self) -> None:
        """Ask the server for one row.

        :raises ConfigError: it does not answer; the message names host, reason and remedy.
        """
        if any(block.is_connected for block in self._blocks):
            return  # it has answered, and a sync test of a sync app needs no async connection
        try:
            if _has_driver(_async_driver(self.url)):
                async with self.async_engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
            else:
                await asyncio.to_thread(self._ask_sync)
        except Exception as error:  # whatever a driver says here, the app must not start without an answer
            cause = error.__cause__ or error
            raise ConfigError(
                f"database {self.name!r} at {_shown(self.url)} does not answer: "
                f"{_first_line(cause)}. {_remedy(self.url)}"
            ) from None

    def _ask_sync(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close the idle connections of the sync engine."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    async def dispose_async(self) -> None:
        """Close the idle connections of both engines."""
        if "async_engine" in self.__dict__:
            await self.async_engine.dispose()
        self.dispose()


def _parse(source: object) -> URL:
    if not isinstance(source, str | URL):
        # The type alone: the value may hold a password.
        raise ConfigError(
            f"Database(<{type(source).__name__}>) cannot work: give a URL as str, an Engine or an AsyncEngine"
        )
    try:
        url = make_url(source)
    except (ArgumentError, ValueError):
        raise ConfigError("the database URL cannot be read: write it as postgresql://user@host/name") from None
    if url.drivername not in DRIVERS:
        if url.drivername == "postgres":
            raise ConfigError("the scheme postgres:// is not known to SQLAlchemy: write postgresql://")
        known = ", ".join(f"{scheme}://" for scheme in DRIVERS)
        raise ConfigError(
            f"the scheme {url.drivername}:// is not known: use one of {known}, or pass an engine of your own, "
            "which is not leased"
        )
    return url


def _allowed_by(engine: Engine | AsyncEngine) -> int | None:
    pool = engine.pool
    if isinstance(pool, LeasePool | AsyncLeasePool):
        return pool.gate.connections
    return budget_of(pool.size(), pool._max_overflow) if isinstance(pool, QueuePool) else None


def _async_driver(url: URL) -> str:
    return _known(url)[0]


def _sync_driver(url: URL) -> str:
    candidates = _known(url)[1]
    return next((driver for driver in candidates if _has_driver(driver)), candidates[0])


def _known(url: URL) -> tuple[str, tuple[str, ...]]:
    try:
        return DRIVERS[url.drivername]
    except KeyError:
        raise ConfigError(
            f"no second engine can be made for {url.drivername}://: pass it as Database(async_engine, sync=engine)"
        ) from None


def _has_driver(driver: str) -> bool:
    module = MODULES.get(driver.partition("+")[2])
    return module is None or importlib.util.find_spec(module) is not None


def _require_driver(url: URL, wanted: Iterable[str]) -> None:
    if any(_has_driver(driver) for driver in wanted):
        return
    packages = " or ".join(dict.fromkeys(driver.partition("+")[2] for driver in wanted))
    raise ConfigError(f"no driver for {url.drivername}:// is installed: pip install {packages}")


def _translate(url: URL, driver: str) -> URL:
    """The same database for another driver: asyncpg's own query options mean nothing to libpq."""
    if url.drivername == driver or driver == "postgresql+asyncpg":
        return url.set(drivername=driver)
    query = {LIBPQ_WORDS.get(key, key): value for key, value in url.query.items() if key not in ASYNCPG_ONLY}
    return url.set(drivername=driver, query=query)


def _remedy(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return "Does its directory exist, and may this process write there?"
    return "Is the server running, and are host, port, user and password right?"


def _shown(url: URL) -> str:
    """A URL without its password, and without its query, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _is_in_memory(url: URL) -> bool:
    database = url.database or ""
    return url.get_backend_name() == "sqlite" and (database in ("", ":memory:") or "mode=memory" in database)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
