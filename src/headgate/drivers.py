"""What differs between the four drivers: transaction status, the autocommit flip, buffering, isolation.

A driver works on what SQLAlchemy calls the DBAPI connection: the driver's own for the sync ones, SQLAlchemy's
adapter for the async ones. Its status is the truth about transactions; no flag of ours replaces it.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sqlite3
import time
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy.engine import Dialect
from sqlalchemy.util import await_only

from headgate.statements import Family

# Values of libpq's PGTransactionStatusType and ConnStatusType that matter here.
PQTRANS_IDLE = 0
CONNECTION_OK = 0

MAX_LAST_WORDS = 8
"""How many packets of an idle server are read in search of the end of its connection."""

WEAK_ISOLATION = frozenset({None, "autocommit", "read_committed", "read_uncommitted"})
WEAK_DEFAULTS = frozenset({"read committed", "read uncommitted"})
PSYCOPG_READ_COMMITTED = 2  # psycopg.IsolationLevel: READ_UNCOMMITTED is 1, REPEATABLE_READ 3

FINISHED_CURSOR_ATTRIBUTES = frozenset(
    {"format", "itersize", "messages", "pgresult", "row_factory", "rownumber", "statusmessage"}
)
"""What may be asked of a finished driver cursor without reaching its connection."""


class Driver(Protocol):
    """One driver's answers to the questions a lease asks."""

    family: Family
    buffers: bool
    """True if a statement's rows are in memory when execute returns."""

    def is_idle(self, dbapi: Any) -> bool:
        """True if no transaction is open and none has failed."""
        ...

    def is_dead(self, dbapi: Any) -> bool:
        """True if the driver knows that the connection has ended; no I/O."""
        ...

    def has_ended(self, dbapi: Any) -> bool:
        """True if an idle connection has provably ended: looks for a farewell that nobody has read yet."""
        ...

    def is_autocommit(self, dbapi: Any) -> bool:
        """True if the application has set the connection to autocommit itself."""
        ...

    def enter_autocommit(self, dbapi: Any) -> None:
        """Make the next statement run without a BEGIN; no I/O."""
        ...

    def leave_autocommit(self, dbapi: Any) -> None:
        """Undo ``enter_autocommit``; no I/O."""
        ...

    def can_lease(self, dbapi: Any) -> bool:
        """Ask a new connection once: does its effective isolation allow leasing? One round trip at most."""
        ...

    def finish(self, cursor: Any) -> None:
        """Detach a buffered cursor from its connection, so that closing it later does not touch it."""
        ...

    def abort(self, dbapi: Any) -> int | None:
        """End an idle connection at once, from any thread, with or without an event loop.

        Returns a descriptor that becomes readable when the server has let go of it, to be closed by the caller;
        None if there is no server.
        """
        ...

    def is_stale_plan(self, error: Exception) -> bool:
        """True if the server refused a cached plan before running it; the next attempt plans anew."""
        ...

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        """Make the next execute of this cursor plan anew."""
        ...


class _Psycopg:
    family: Family = "postgresql"
    buffers = True

    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi

    def is_idle(self, dbapi: Any) -> bool:
        return bool(self.raw(dbapi).pgconn.transaction_status == PQTRANS_IDLE)

    def is_dead(self, dbapi: Any) -> bool:
        return bool(self.raw(dbapi).pgconn.status != CONNECTION_OK)

    def has_ended(self, dbapi: Any) -> bool:
        pgconn = self.raw(dbapi).pgconn
        # An idle server has nothing to say: what can be read is a notice, or a farewell and then the end.
        for _ in range(MAX_LAST_WORDS):
            if pgconn.status != CONNECTION_OK or not has_input(pgconn.socket):
                break
            with suppress(Exception):  # psycopg may be absent here; libpq's status tells the same
                pgconn.consume_input()
        return bool(pgconn.status != CONNECTION_OK)

    def is_autocommit(self, dbapi: Any) -> bool:
        return bool(self.raw(dbapi).autocommit)

    def enter_autocommit(self, dbapi: Any) -> None:
        # The public setter takes a lock and, when async, a switch of greenlets: more than the whole statement.
        self.raw(dbapi)._autocommit = True

    def leave_autocommit(self, dbapi: Any) -> None:
        self.raw(dbapi)._autocommit = False

    def can_lease(self, dbapi: Any) -> bool:
        raw = self.raw(dbapi)
        if not (hasattr(raw, "_autocommit") and hasattr(raw, "_prepared")):
            return False  # a psycopg we do not know
        if (raw.isolation_level or 0) > PSYCOPG_READ_COMMITTED or not self.is_idle(dbapi):
            return False
        return _default_isolation(self, dbapi) in WEAK_DEFAULTS

    def finish(self, cursor: Any) -> None:
        pass

    def abort(self, dbapi: Any) -> int | None:
        pgconn = self.raw(dbapi).pgconn
        descriptor = os.dup(pgconn.socket)
        pgconn.finish()
        return descriptor

    def is_stale_plan(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) == "0A000" and "cached plan" in str(error)

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        self.raw(dbapi)._prepared.clear()


class _PsycopgAsync(_Psycopg):
    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi._connection


class _Asyncpg:
    family: Family = "postgresql"
    buffers = True

    def is_idle(self, dbapi: Any) -> bool:
        return dbapi._transaction is None and not dbapi._connection.is_in_transaction()

    def is_dead(self, dbapi: Any) -> bool:
        return bool(dbapi._connection.is_closed())

    def has_ended(self, dbapi: Any) -> bool:
        raw = dbapi._connection
        for _ in range(MAX_LAST_WORDS):
            if raw.is_closed() or not has_input(_descriptor(raw)):
                break
            # The loop has not come round yet to read what the server said while the connection was idle.
            await_only(asyncio.sleep(0))
        return bool(raw.is_closed())

    def is_autocommit(self, dbapi: Any) -> bool:
        return bool(dbapi.autocommit)

    def enter_autocommit(self, dbapi: Any) -> None:
        dbapi.isolation_level = "autocommit"

    def leave_autocommit(self, dbapi: Any) -> None:
        dbapi.isolation_level = dbapi._isolation_setting

    def can_lease(self, dbapi: Any) -> bool:
        if dbapi._isolation_setting not in WEAK_ISOLATION or not self.is_idle(dbapi):
            return False
        return _default_isolation(self, dbapi) in WEAK_DEFAULTS

    def finish(self, cursor: Any) -> None:
        pass

    def abort(self, dbapi: Any) -> int | None:
        # Its loop may be another thread's, stopped or closed: the server is told past it.
        raw = dbapi._connection
        try:
            twin = socket.socket(fileno=os.dup(_descriptor(raw)))
        except (OSError, AttributeError):  # it has ended already, and its loop has seen that
            return None
        with suppress(OSError):
            twin.shutdown(socket.SHUT_WR)
        with suppress(RuntimeError):  # the loop is closed, so it has nothing to clean up
            raw._loop.call_soon_threadsafe(raw.terminate)
        return twin.detach()

    def is_stale_plan(self, error: Exception) -> bool:
        return type(error).__name__ == "InvalidCachedStatementError"

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        cursor._invalidate_schema_cache_asof = time.time()  # SQLAlchemy compares it with its own time.time()


class _Sqlite:
    """Never flipped: in sqlite3's legacy mode a SELECT opens no transaction, and a flip inside one commits."""

    family: Family = "sqlite"
    buffers = False

    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi

    def is_idle(self, dbapi: Any) -> bool:
        return not self.raw(dbapi).in_transaction

    def is_dead(self, dbapi: Any) -> bool:
        try:
            self.is_idle(dbapi)
        except (sqlite3.ProgrammingError, ValueError):  # closed: by sqlite3's word, by aiosqlite's
            return True
        return False

    def has_ended(self, dbapi: Any) -> bool:
        return False

    def is_autocommit(self, dbapi: Any) -> bool:
        return False

    def enter_autocommit(self, dbapi: Any) -> None:
        pass

    def leave_autocommit(self, dbapi: Any) -> None:
        pass

    def can_lease(self, dbapi: Any) -> bool:
        raw = self.raw(dbapi)
        legacy = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)
        return raw.isolation_level is not None and getattr(raw, "autocommit", legacy) == legacy

    def finish(self, cursor: Any) -> None:
        pass

    def abort(self, dbapi: Any) -> int | None:
        self.raw(dbapi).close()
        return None

    def is_stale_plan(self, error: Exception) -> bool:
        return False

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        pass


class _Aiosqlite(_Sqlite):
    buffers = True

    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi._connection._conn

    def finish(self, cursor: Any) -> None:
        # SQLAlchemy closes the driver's cursor after execute has returned; by then another session may hold
        # the connection. 2.0.43 has closed it already.
        close = getattr(cursor, "_async_soft_close", None)
        if close is not None:
            await_only(close())

    def abort(self, dbapi: Any) -> int | None:
        dbapi._connection.stop()
        return None


def _descriptor(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())


def has_input(descriptor: int, timeout_ms: int = 0) -> bool:
    """Tell whether a socket can be read without waiting, which its end is, too."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], timeout_ms / 1000)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def _default_isolation(driver: Driver, dbapi: Any) -> str:
    """The server's default for this role and database, asked outside a transaction."""
    flips = not driver.is_autocommit(dbapi)
    if flips:
        driver.enter_autocommit(dbapi)
    try:
        cursor = dbapi.cursor()
        try:
            cursor.execute("SHOW default_transaction_isolation")
            return str(cursor.fetchone()[0])
        finally:
            cursor.close()
    finally:
        if flips:
            driver.leave_autocommit(dbapi)


_DRIVERS: dict[tuple[str, str, bool], Driver] = {
    ("postgresql", "psycopg", False): _Psycopg(),
    ("postgresql", "psycopg", True): _PsycopgAsync(),
    ("postgresql", "psycopg_async", True): _PsycopgAsync(),
    ("postgresql", "asyncpg", True): _Asyncpg(),
    ("sqlite", "pysqlite", False): _Sqlite(),
    ("sqlite", "aiosqlite", True): _Aiosqlite(),
}


def driver_for(dialect: Dialect | None) -> Driver | None:
    """The driver behind a dialect, or None where Headgate does not lease."""
    return None if dialect is None else _DRIVERS.get((dialect.name, dialect.driver, dialect.is_async))
