"""What the benchmarks of leases do in one operation: with an ORM session, sync or async, and with the bare driver."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import psycopg
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

ROWS = 1_000
PAUSE_S = 0.05
SELECT = "SELECT id, owner, balance FROM account WHERE id = "
UPDATE = "UPDATE account SET balance = {0} WHERE id = {0}"
INSERT = "INSERT INTO account (owner, balance) VALUES ({0}, {0}) RETURNING id"


AsyncWork = Callable[[int], Coroutine[Any, Any, None]]
SyncWork = Callable[[int], None]
"""One operation; its number says which rows."""


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    balance: Mapped[int]


def key_of(index: int) -> int:
    """Some row; neighbours in time are not neighbours in the table."""
    return 1 + index * 37 % ROWS


class AsyncOrm:
    """Sessions as an app writes them."""

    def __init__(self, sessions: Callable[[], AsyncSession]) -> None:
        self._sessions = sessions

    async def read_one(self, index: int) -> None:
        async with self._sessions() as session:
            await session.get(Account, key_of(index))

    async def read_three(self, index: int) -> None:
        async with self._sessions() as session:
            for key in range(3 * index, 3 * index + 3):
                await session.get(Account, key_of(key))

    async def change(self, index: int) -> None:
        async with self._sessions() as session:
            account = await session.get_one(Account, key_of(index))
            account.balance += 1
            await session.commit()

    async def insert(self, index: int) -> None:
        async with self._sessions() as session:
            session.add(Account(owner="somebody", balance=index))
            await session.commit()

    async def read_and_await(self, index: int) -> None:
        async with self._sessions() as session:
            for key in range(3 * index, 3 * index + 3):
                await session.get(Account, key_of(key))
                await asyncio.sleep(PAUSE_S)


class SyncOrm:
    """The same, sync."""

    def __init__(self, sessions: Callable[[], Session]) -> None:
        self._sessions = sessions

    def read_one(self, index: int) -> None:
        with self._sessions() as session:
            session.get(Account, key_of(index))

    def read_three(self, index: int) -> None:
        with self._sessions() as session:
            for key in range(3 * index, 3 * index + 3):
                session.get(Account, key_of(key))

    def change(self, index: int) -> None:
        with self._sessions() as session:
            account = session.get_one(Account, key_of(index))
            account.balance += 1
            session.commit()

    def insert(self, index: int) -> None:
        with self._sessions() as session:
            session.add(Account(owner="somebody", balance=index))
            session.commit()


class BareAsyncpg:
    """asyncpg's own pool: acquire, fetchrow, release with its reset (a round trip); a transaction for what writes."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def read_one(self, index: int) -> None:
        async with self._pool.acquire() as connection:
            await connection.fetchrow(SELECT + "$1", key_of(index))

    async def read_three(self, index: int) -> None:
        async with self._pool.acquire() as connection:
            for key in range(3 * index, 3 * index + 3):
                await connection.fetchrow(SELECT + "$1", key_of(key))

    async def change(self, index: int) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(SELECT + "$1", key_of(index))
            await connection.execute("UPDATE account SET balance = $1 WHERE id = $2", row["balance"] + 1, row["id"])

    async def insert(self, index: int) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(
                "INSERT INTO account (owner, balance) VALUES ($1, $2) RETURNING id", "somebody", index
            )

    async def read_and_await(self, index: int) -> None:
        for key in range(3 * index, 3 * index + 3):
            await self.read_one(key)
            await asyncio.sleep(PAUSE_S)


class BarePsycopgAsync:
    """One async psycopg connection in autocommit: cursor, execute, fetchone; a transaction for what writes."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def read_one(self, index: int) -> None:
        await self._read(key_of(index))

    async def read_three(self, index: int) -> None:
        for key in range(3 * index, 3 * index + 3):
            await self._read(key_of(key))

    async def change(self, index: int) -> None:
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.execute(SELECT + "%s", (key_of(index),))
            key, _, balance = await cursor.fetchone() or (0, "", 0)
            await cursor.execute(UPDATE.format("%s"), (balance + 1, key))

    async def insert(self, index: int) -> None:
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.execute(INSERT.format("%s"), ("somebody", index))
            await cursor.fetchone()

    async def _read(self, key: int) -> None:
        async with self._connection.cursor() as cursor:
            await cursor.execute(SELECT + "%s", (key,))
            await cursor.fetchone()


class BarePsycopg:
    """One psycopg connection in autocommit: cursor, execute, fetchone; a transaction for what writes."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def read_one(self, index: int) -> None:
        self._read(key_of(index))

    def read_three(self, index: int) -> None:
        for key in range(3 * index, 3 * index + 3):
            self._read(key_of(key))

    def change(self, index: int) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(SELECT + "%s", (key_of(index),))
            key, _, balance = cursor.fetchone() or (0, "", 0)
            cursor.execute(UPDATE.format("%s"), (balance + 1, key))

    def insert(self, index: int) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(INSERT.format("%s"), ("somebody", index))
            cursor.fetchone()

    def _read(self, key: int) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(SELECT + "%s", (key,))
            cursor.fetchone()


class BareSqlite:
    """One sqlite3 connection: execute, fetchone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read_one(self, index: int) -> None:
        self._connection.execute(SELECT + "?", (key_of(index),)).fetchone()

    def read_three(self, index: int) -> None:
        for key in range(3 * index, 3 * index + 3):
            self._connection.execute(SELECT + "?", (key_of(key),)).fetchone()
