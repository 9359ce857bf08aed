"""Deeds through SQLAlchemy's async interface: ``stream``, ``async with begin()``, ``run_sync``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from .models import Audit, Author, Book
from .player import Player
from .steps import BOOLEANS, CONNECTION, KEY, NAME, SESSION, deed


@deed("async", "async", session=SESSION, stop=range(5))
def stream_scalars(player: Player, session: int, stop: int) -> Any:
    """Leave a stream before its end, with another query in the middle."""

    async def read() -> Any:
        found: list[Any] = []
        asyncs = player.async_session(session)
        result = await asyncs.stream_scalars(select(Book).order_by(Book.id))
        async for book in result:
            found.append([book, await asyncs.scalar(text("SELECT count(*) FROM tag"))])
            if len(found) == stop:
                break
        await result.close()
        return found

    return player.wait(read())


@deed("async", "async", session=SESSION)
def stream_partitions(player: Player, session: int) -> Any:
    async def read() -> Any:
        result = await player.async_session(session).stream(select(Book.id, Book.title).order_by(Book.id))
        return [list(part) async for part in result.partitions(3)]

    return player.wait(read())


@deed("async", "async", session=SESSION, name=NAME, fails=BOOLEANS)
def async_begin(player: Player, session: int, name: str, fails: bool) -> Any:
    async def work() -> Any:
        asyncs = player.async_session(session)
        async with asyncs.begin():
            asyncs.add(Author(name=name))
            found = (await asyncs.scalars(select(Author).order_by(Author.id))).all()
            if fails:
                raise KeyError("out of the block")
        return found

    return player.wait(work())


@deed("async", "async", session=SESSION, key=KEY)
def async_get_and_refresh(player: Player, session: int, key: int) -> Any:
    async def work() -> Any:
        asyncs = player.async_session(session)
        author = await asyncs.get(Author, key)
        if author is not None:
            await asyncs.refresh(author, ["books"])
        return author and author.books

    return player.wait(work())


@deed("async", "async", name=NAME, fails=BOOLEANS)
def async_engine_begin(player: Player, name: str, fails: bool) -> Any:
    async def work() -> Any:
        async with player.arm.async_engine(player.engine()).begin() as connection:
            await connection.execute(insert(Audit.__table__), {"note": name})
            if fails:
                raise KeyError("out of the block")
            return (await connection.execute(text("SELECT note FROM audit ORDER BY id"))).all()

    return player.wait(work())


@deed("async", "async", connection=CONNECTION)
def async_connection_stream(player: Player, connection: int) -> Any:
    known = player.async_connection(connection)

    async def read() -> Any:
        async with known.stream(select(Book.title).order_by(Book.id)) as result:
            return [await result.fetchone(), await result.fetchmany(2)]

    return player.wait(read())


@deed("async", "async", session=SESSION)
def async_run_sync(player: Player, session: int) -> Any:
    def body(known: Any) -> Any:
        return [author.books for author in known.scalars(select(Author).order_by(Author.id))]

    async def work() -> Any:
        asyncs: AsyncSession = player.async_session(session)
        return await asyncs.run_sync(body)

    return player.wait(work())
