"""Flaws of stock and of drivers that would make chance decide between the arms, mended on both alike."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import aiosqlite
import pytest
from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor


def reset_to(engine: Engine, level: str) -> None:
    """Let a connection's own isolation be reset to what the engine's ``connect`` listener has set.

    Stock resets it to its default and so leaves connections of two kinds in the pool; which of them a program gets
    would decide what it sees.
    """
    dialect: Any = engine.dialect

    def reset(dbapi: Any) -> None:
        if dialect.name != "sqlite":
            dialect.set_isolation_level(dbapi, level)
        elif not _is_in_transaction(dbapi):  # the driver would commit what stock has left open after a refused COMMIT
            dbapi.isolation_level = None  # the ``begin`` recipe

    dialect.reset_isolation_level = reset


def _is_in_transaction(dbapi: Any) -> bool:
    return bool(getattr(dbapi, "_connection", dbapi).in_transaction)


class LockedOutCursor(sqlite3.Cursor):
    """Begins the transaction of a change that SQLite has refused as locked, if the driver has not.

    Where the connection has never read the schema, the change fails before the driver's BEGIN, else after it; which of
    the pool's connections it was would decide whether the next SELECT keeps its lock.
    """

    def execute(self, sql: str, *args: Any) -> Self:
        with self._begun_if_locked(sql):
            return super().execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> Self:
        with self._begun_if_locked(sql):
            return super().executemany(sql, *args)

    @contextmanager
    def _begun_if_locked(self, sql: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            known = self.connection
            is_change = known.isolation_level is not None and CHANGE.match(sql)
            if is_change and "locked" in str(error) and not known.in_transaction:
                known.execute("BEGIN")
            raise


class LockedOutConnection(sqlite3.Connection):
    """The connection of such cursors."""

    def cursor(self, factory: Any = LockedOutCursor) -> Any:
        return super().cursor(factory)


CHANGE = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
"""What the driver begins a transaction for."""


@contextmanager
def failed_streams_end() -> Iterator[None]:
    """Let asyncpg end what it began on the server for a stream that it then refuses outside a transaction.

    It prepares the statement without a Sync, so that the server's connection goes back to the pool inside an implicit
    transaction that holds the statement's locks; whoever gets it next meets an error or not.
    """
    original = AsyncAdapt_asyncpg_cursor._prepare_and_execute

    async def execute(cursor: Any, operation: Any, parameters: Any) -> Any:
        try:
            return await original(cursor, operation, parameters)
        except Exception:
            raw = cursor._connection
            if cursor.server_side and not raw.is_closed() and not raw.is_in_transaction():
                await raw.execute("")
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncAdapt_asyncpg_cursor, "_prepare_and_execute", execute)
        yield


@contextmanager
def closed_connections_end() -> Iterator[None]:
    """Let aiosqlite end the transaction of a connection that it closes.

    A cursor that has met an error lives on in that error's traceback, which is garbage; SQLite keeps the transaction of
    a closed connection as long as one of its cursors, so which of the pool's connections had the error would decide.
    """
    original = aiosqlite.Connection.close

    async def close(connection: aiosqlite.Connection) -> None:
        if connection._connection is not None:
            await connection.rollback()
        await original(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiosqlite.Connection, "close", close)
        yield
