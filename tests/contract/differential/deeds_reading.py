"""Deeds that read: entities, columns, joins, every way of loading, streams, locks, and reads that fail."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exists, func, literal, select, text
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    defer,
    joinedload,
    load_only,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
)

from .models import Author, Base, Book, Mood, Tag
from .player import Player
from .steps import BOOLEANS, INDEX, KEY, NAME, SESSION, deed

LOADERS: dict[str, Any] = {
    "lazy": lambda: (),
    "joined": lambda: (joinedload(Author.books),),
    "selectin": lambda: (selectinload(Author.books).selectinload(Book.tags),),
    "subquery": lambda: (subqueryload(Author.books),),
    "mixed": lambda: (selectinload(Author.books).joinedload(Book.tags), undefer(Author.bio)),
    "load_only": lambda: (load_only(Author.name),),
    "defer": lambda: (defer(Author.rank),),
    "raiseload": lambda: (selectinload(Author.books).raiseload(Book.tags),),
}
CLASSES: dict[str, type[Base]] = {"Author": Author, "Book": Book, "Tag": Tag}
CLASS = tuple(CLASSES)
LOCKS: dict[str, dict[str, Any]] = {
    "update": {},
    "share": {"read": True},
    "nowait": {"nowait": True},
    "skip locked": {"skip_locked": True},
    "key share": {"key_share": True, "read": True},
}


@deed("read", session=SESSION, loader=tuple(LOADERS), populate=BOOLEANS)
def select_authors(player: Player, session: int, loader: str, populate: bool) -> Any:
    query = select(Author).options(*LOADERS[loader]()).order_by(Author.id)
    query = query.execution_options(populate_existing=populate)
    return player.session(session).scalars(query).unique().all()


@deed("read", session=SESSION, least=(0, 50, 1000))
def select_books_with_author(player: Player, session: int, least: int) -> Any:
    query = select(Book, Author).join(Book.author, isouter=True).where(Book.pages >= least).order_by(Book.id)
    return player.session(session).execute(query).all()


@deed("read", session=SESSION)
def select_columns(player: Player, session: int) -> Any:
    query = (
        select(Author.name, func.count(Book.id), func.coalesce(func.sum(Book.pages), 0))
        .outerjoin(Author.books)
        .group_by(Author.id, Author.name)
        .order_by(Author.name)
    )
    return player.session(session).execute(query).all()


@deed("read", session=SESSION, least=(0, 50))
def select_contains_eager(player: Player, session: int, least: int) -> Any:
    query = select(Author).join(Author.books).where(Book.pages > least).options(contains_eager(Author.books))
    query = query.order_by(Author.id, Book.id).execution_options(populate_existing=True)
    return player.session(session).scalars(query).unique().all()


@deed("read", session=SESSION)
def select_with_criteria(player: Player, session: int) -> Any:
    query = select(Author).options(selectinload(Author.books), with_loader_criteria(Book, Book.pages < 100))
    return player.session(session).scalars(query.order_by(Author.id)).all()


@deed("read", session=SESSION, mood=tuple(Mood))
def select_by_enum(player: Player, session: int, mood: Mood) -> Any:
    return player.session(session).scalars(select(Author).where(Author.mood == mood).order_by(Author.id)).all()


@deed("read", session=SESSION)
def select_cte_and_window(player: Player, session: int) -> Any:
    ranked = select(Book.id, func.row_number().over(order_by=Book.pages).label("place")).cte("ranked")
    other = aliased(Book)
    query = select(ranked.c.place, other.title).join(other, other.id == ranked.c.id).order_by(ranked.c.place)
    return player.session(session).execute(query).all()


@deed("read", session=SESSION, name=NAME)
def select_exists(player: Player, session: int, name: str) -> Any:
    return player.session(session).scalar(select(exists().where(Author.name == name)))


@deed("read", session=SESSION, key=KEY)
def scalar_one(player: Player, session: int, key: int) -> Any:
    return player.session(session).scalars(select(Author).where(Author.id >= key).order_by(Author.id)).one()


@deed("read", session=SESSION, name=NAME)
def legacy_query(player: Player, session: int, name: str) -> Any:
    query = player.session(session).query(Author)
    return [query.filter_by(name=name).first(), query.count(), query.order_by(Author.id).limit(2).all()]


@deed("read", session=SESSION, kind=CLASS, key=KEY, populate=BOOLEANS)
def get(player: Player, session: int, kind: str, key: int, populate: bool) -> Any:
    return player.session(session).get(CLASSES[kind], key, populate_existing=populate)


@deed("read", session=SESSION, key=KEY)
def get_one(player: Player, session: int, key: int) -> Any:
    return player.session(session).get_one(Book, key, options=[joinedload(Book.author)])


@deed("read", index=INDEX, name=("books", "bio", "rank", "name"))
def load_author(player: Player, index: int, name: str) -> Any:
    author = player.pick(Author, index)
    return author and getattr(author, name)


@deed("read", index=INDEX, name=("author", "tags", "title", "version"))
def load_book(player: Player, index: int, name: str) -> Any:
    book = player.pick(Book, index)
    return book and getattr(book, name)


@deed("read", index=INDEX)
def load_tag(player: Player, index: int) -> Any:
    tag = player.pick(Tag, index)
    return tag and [tag.label, tag.books]


@deed("read", session=SESSION, kind=CLASS, index=INDEX, lock=BOOLEANS)
def refresh(player: Player, session: int, kind: str, index: int, lock: bool) -> Any:
    known = player.pick(CLASSES[kind], index)
    if known is not None:
        player.session(session).refresh(known, with_for_update=lock or None)
    return known


@deed("read", session=SESSION, index=INDEX, names=(("name",), ("books",), ("name", "bio")))
def refresh_attributes(player: Player, session: int, index: int, names: tuple[str, ...]) -> Any:
    author = player.pick(Author, index)
    if author is not None:
        player.session(session).refresh(author, names)
    return author


@deed("read", session=SESSION, key=KEY, lock=tuple(LOCKS))
def select_for_update(player: Player, session: int, key: int, lock: str) -> Any:
    query = select(Book).where(Book.id <= key).order_by(Book.id).with_for_update(**LOCKS[lock])
    return player.session(session).scalars(query).all()


@deed("read", session=SESSION)
def select_text(player: Player, session: int) -> Any:
    return player.session(session).execute(text("SELECT id, name FROM author ORDER BY id")).all()


@deed("read", session=SESSION)
def select_from_text(player: Player, session: int) -> Any:
    query = select(Author).from_statement(text("SELECT id, name FROM author ORDER BY name"))
    return player.session(session).scalars(query).all()


# streams


@deed("stream", session=SESSION, size=(1, 2), stop=range(4))
def partitions(player: Player, session: int, size: int, stop: int) -> Any:
    """Read some partitions, ask something else between them, and leave the rest."""
    found: list[Any] = []
    with player.session(session).scalars(select(Book).order_by(Book.id).execution_options(yield_per=size)) as result:
        for number, part in enumerate(result.partitions()):
            found.append([part, player.session(session).scalar(select(func.count()).select_from(Tag))])
            if number == stop:
                break
    return found


@deed("stream", session=SESSION, result=(0, 1), streams=BOOLEANS)
def open_result(player: Player, session: int, result: int, streams: bool) -> Any:
    """Leave a result open; later steps read on."""
    query = select(Book.id, Book.title).order_by(Book.id).execution_options(stream_results=streams)
    player.results[result] = player.session(session).execute(query)
    return player.results[result].fetchone()


@deed("stream", result=(0, 1), how=("fetchone", "fetchall", "close", "first"))
def read_on(player: Player, result: int, how: str) -> Any:
    known = player.results.get(result)
    return known and getattr(known, how)()


# what cannot succeed


@deed("failing", session=SESSION, divisor=(0, 1))
def divide(player: Player, session: int, divisor: int) -> Any:
    query = select(literal(6) / Book.pages.op("*")(divisor)).where(Book.pages > 0).order_by(Book.id)
    return player.session(session).scalars(query).all()


@deed(
    "failing",
    session=SESSION,
    statement=(
        "SELECT missing",
        "SELEC 1",
        "SELECT abs(-9223372036854775807 - 1)",
        "SELECT lower(name, name) FROM author",
        "INSERT INTO author (id) VALUES (NULL)",
        "",
    ),
)
def fail_in_sql(player: Player, session: int, statement: str) -> Any:
    return player.session(session).execute(text(statement)).all()


@deed("failing", session=SESSION)
def fail_before_sql(player: Player, session: int) -> Any:
    """A parameter that cannot be sent."""
    return player.session(session).execute(select(Author).where(Author.mood == "unheard of")).all()


@deed("failing", session=SESSION)
def fail_while_reading(player: Player, session: int) -> Any:
    for book in player.session(session).scalars(select(Book).order_by(Book.id)):
        raise KeyError(book.title)
