"""Flaws of stock and of drivers that would make chance decide between the arms, mended on both alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
