"""The drivers that Headgate leases from, by SQLAlchemy's dialect."""

from __future__ import annotations

from sqlalchemy.engine import Dialect

from headgate.drivers.asyncpg import Asyncpg
from headgate.drivers.protocol import (
    FINISHED_CURSOR_ATTRIBUTES,
    Cancel,
    Driver,
    Facts,
    IdleWatch,
    ReadOnlyDefault,
)
from headgate.drivers.psycopg import Psycopg, PsycopgAsync
from headgate.drivers.sockets import has_input
from headgate.drivers.sqlite import Aiosqlite, Sqlite

__all__ = [
    "FINISHED_CURSOR_ATTRIBUTES",
    "Cancel",
    "Driver",
    "Facts",
    "IdleWatch",
    "ReadOnlyDefault",
    "driver_for",
    "has_input",
]

_DRIVERS: dict[tuple[str, str, bool], Driver] = {
    ("postgresql", "psycopg", False): Psycopg(),
    ("postgresql", "psycopg", True): PsycopgAsync(),
    ("postgresql", "psycopg_async", True): PsycopgAsync(),
    ("postgresql", "asyncpg", True): Asyncpg(),
    ("sqlite", "pysqlite", False): Sqlite(),
    ("sqlite", "aiosqlite", True): Aiosqlite(),
}


def driver_for(dialect: Dialect | None) -> Driver | None:
    """The driver behind a dialect, or None where Headgate does not lease."""
    return None if dialect is None else _DRIVERS.get((dialect.name, dialect.driver, dialect.is_async))
