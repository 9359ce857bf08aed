"""Deeds of somebody else: rows committed, and tables locked, on a connection that the program knows nothing of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from .player import Player
from .steps import KEY, SESSION, deed

WRITES = (
    "UPDATE author SET name = name || '*' WHERE id = {key} AND length(name) < 11",
    "UPDATE book SET pages = pages + 1000 WHERE id = {key}",
    "UPDATE book SET version = version + 1 WHERE id = {key}",
    "DELETE FROM book_tag WHERE book_id = {key}",
    "DELETE FROM tag WHERE id = {key}",
    "INSERT INTO tag (id, label) VALUES ({key} + 20, 'outside')",
    "INSERT INTO book (id, title, pages, author_id, version) VALUES ({key} + 20, 'outside', 1, 1, 1)",
)


@deed("outside", write=range(len(WRITES)), key=KEY)
def write_outside(player: Player, write: int, key: int) -> Any:
    return player.arm.ground.write(player.arm.name, WRITES[write].format(key=key))


@deed("outside", "postgresql", table=("author", "book", "tag"))
def lock_outside(player: Player, table: str) -> Any:
    return player.arm.ground.lock(player.arm.name, table)


@deed("outside", "postgresql", session=SESSION)
def read_clock(player: Player, session: int) -> Any:
    """Does time stand still, as it does in a transaction?"""
    first, second = (player.session(session).scalar(select(func.now())) for _ in range(2))
    return first == second
