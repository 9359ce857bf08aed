"""The engines of one arm: stock SQLAlchemy's pool, or ours, with every isolation a program can ask an engine for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from headgate import AsyncLeasePool, LeasePool
from headgate.gate import Gate

from .grounds import ArmName, Ground
from .mends import reset_to

POSTGRESQL = ("psycopg", "psycopg_async", "asyncpg")
DRIVERS = (*POSTGRESQL, "pysqlite", "aiosqlite")
ASYNC = ("psycopg_async", "asyncpg", "aiosqlite")

POOL_SIZE = 8
"""More than a program can hold at once: what happens when there is none left is no question of semantics."""

Source = Literal["nowhere", "create_engine", "engine option", "role", "listener"]


@dataclass(frozen=True, slots=True)
class Isolation:
    """An isolation level and the place it is set at; connection and session options are steps of a program."""

    source: Source = "nowhere"
    level: str = ""


def is_async(driver: str) -> bool:
    """Tell whether a driver's engine is an ``AsyncEngine``."""
    return driver in ASYNC


class Arm:
    """One side: its engines live over many programs."""

    def __init__(self, name: ArmName, driver: str, ground: Ground) -> None:
        self.name = name
        self.driver = driver
        self.ground = ground
        self.is_async = is_async(driver)
        self.is_postgresql = driver in POSTGRESQL
        self.watch: Any = None
        """Gets the engines' events; the player of the program that runs."""
        self.vanishing: list[int] = []
        self._engines: dict[tuple[Isolation, int], Engine] = {}
        self._made: list[Engine | AsyncEngine] = []

    def engine(self, isolation: Isolation, number: int = 0) -> Engine:
        """The engine of this isolation, sync outside; ``number`` tells two of one program apart."""
        if isolation.source == "engine option":
            return self.engine(Isolation(), number).execution_options(isolation_level=isolation.level)
        known = self._engines.get((isolation, number))
        if known is None:
            known = self._engines[isolation, number] = self._make(isolation)
        return known

    def async_engine(self, engine: Engine) -> AsyncEngine:
        """The ``AsyncEngine`` around an engine of this arm."""
        return AsyncEngine(engine)

    def _make(self, isolation: Isolation) -> Engine:
        family = "postgresql" if self.is_postgresql else "sqlite"
        role = isolation.level if isolation.source == "role" else None
        url = self.ground.url(self.name, role).set(drivername=f"{family}+{self.driver}")
        options: dict[str, Any] = {
            "pool_size": POOL_SIZE,
            "max_overflow": 0,
            "pool_timeout": 1,
            "connect_args": self.ground.connect_args(self.name, self.driver),
        }
        if isolation.source == "create_engine":
            options["isolation_level"] = isolation.level
        engine = self._create(url, options)
        self._listen(engine, isolation)
        if isolation.source == "listener":
            reset_to(engine, isolation.level)
        return engine

    def _create(self, url: Any, options: dict[str, Any]) -> Engine:
        is_leased = self.name == "leased"
        if self.is_async:
            pool: Any = AsyncLeasePool if is_leased else AsyncAdaptedQueuePool
            made = create_async_engine(url, poolclass=pool, **options)
            self._made.append(made)
            return made.sync_engine
        engine = create_engine(url, poolclass=LeasePool if is_leased else QueuePool, **options)
        self._made.append(engine)
        return engine

    def _listen(self, engine: Engine, isolation: Isolation) -> None:
        event.listen(engine, "connect", _Settings(self, isolation).apply)
        event.listen(engine, "close", self._note_end)
        event.listen(engine, "close_detached", self._note_end)
        for name in ("begin", "commit", "rollback", "savepoint", "rollback_savepoint", "release_savepoint"):
            event.listen(engine, name, _forward(self, name))
        event.listen(engine, "before_cursor_execute", self._before_cursor_execute)
        event.listen(engine, "after_cursor_execute", self._after_cursor_execute)
        event.listen(engine, "handle_error", self._handle_error)
        if isolation.source == "listener" and not self.is_postgresql:
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))

    def _note_end(self, dbapi: Any, *record: Any) -> None:
        if self.is_postgresql:
            self.vanishing.append(backend_of(dbapi))

    def _before_cursor_execute(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self.watch.note(f"execute {statement} {parameters!r} {many}")

    def _after_cursor_execute(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self.watch.note(f"executed, {cursor.rowcount} rows")

    def _handle_error(self, context: Any) -> None:
        self.watch.handle_error(context)

    def left_out(self) -> list[str]:
        """The engines whose connections have not all come back."""
        return [told for engine in self._engines.values() if (told := _what_is_out(engine))]

    def gates(self) -> list[Gate]:
        """The gates of the engines that lease."""
        pools: list[Any] = [engine.pool for engine in self._engines.values()]
        return [pool.gate for pool in pools if isinstance(pool, LeasePool | AsyncLeasePool)]

    def close(self) -> list[Any]:
        """Forget the engines and return them; the caller disposes of them where it may do I/O."""
        made, self._made, self._engines = self._made, [], {}
        return made


def _what_is_out(engine: Engine) -> str:
    pool: Any = engine.pool
    if isinstance(pool, LeasePool | AsyncLeasePool):
        now = pool.gate.statistics()
        return repr(pool.gate) if now.in_use or now.pending or pool.checkedout() else ""
    return str(pool.status()) if pool.checkedout() else ""


def _forward(arm: Arm, name: str) -> Any:
    def forward(*args: Any) -> None:
        arm.watch.engine_event(name, *args)

    return forward


@dataclass(frozen=True, slots=True)
class _Settings:
    """The ``connect`` listener of an engine."""

    arm: Arm
    isolation: Isolation

    def apply(self, dbapi: Any, record: Any) -> None:
        for statement in self._statements():
            cursor = dbapi.cursor()
            cursor.execute(statement)
            cursor.close()
            dbapi.commit()
        if self.isolation.source == "listener" and not self.arm.is_postgresql:
            dbapi.isolation_level = None

    def _statements(self) -> list[str]:
        if not self.arm.is_postgresql:
            return ["PRAGMA foreign_keys=ON"]
        if self.isolation.source == "listener":
            return [f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {self.isolation.level}"]
        return []


def backend_of(dbapi: Any) -> int:
    """The server process behind a DBAPI connection of psycopg or asyncpg."""
    raw = getattr(dbapi, "_connection", dbapi)
    return int(raw.get_server_pid() if hasattr(raw, "get_server_pid") else raw.info.backend_pid)


def isolation_of(dbapi: Any) -> str:
    """The level that a DBAPI connection of psycopg or asyncpg begins with; empty where that is the server's default."""
    raw = dbapi if hasattr(dbapi, "isolation_level") else dbapi._connection
    level = raw.isolation_level or ""
    return str(getattr(level, "name", level)).replace("_", " ").upper()
