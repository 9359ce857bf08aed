"""Deeds that change: objects and their relations, flushes, merges, and DML in bulk."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, insert, inspect, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from .deeds_reading import CLASS, CLASSES
from .models import Audit, Author, Book, Mood, Tag
from .player import Player
from .steps import BOOLEANS, INDEX, KEY, NAME, NUMBER, SESSION, count_of, deed

SYNCHRONIZE = ("auto", "evaluate", "fetch", False)


@deed("change", session=SESSION, name=NAME)
def add_author(player: Player, session: int, name: str) -> Any:
    author = Author(name=name, mood=Mood.wild)
    player.session(session).add(author)
    return author


@deed("change", session=SESSION, index=INDEX, number=NUMBER)
def add_book(player: Player, session: int, index: int, number: int) -> Any:
    book = Book(title=f"new {number}", pages=number * 10 - 5, author=player.pick(Author, index))
    player.session(session).add(book)
    return book


@deed("change", session=SESSION, key=KEY)
def add_with_key(player: Player, session: int, key: int) -> Any:
    """A key that may be taken already."""
    tag = Tag(id=key, label=f"tag {key}")
    player.session(session).add(tag)
    return tag


@deed("change", session=SESSION, index=INDEX, name=NAME)
def add_several(player: Player, session: int, index: int, name: str) -> Any:
    book = Book(title=name, tags=[Tag(label=name), Tag(label=f"{name}+")])
    player.session(session).add_all([Author(name=f"{name}{index}", books=[book]), Audit(note=name)])
    return book


@deed("change", index=INDEX, name=NAME)
def rename(player: Player, index: int, name: str) -> Any:
    author = player.pick(Author, index)
    if author is not None:
        author.name = name
    return author


@deed("change", index=INDEX, number=NUMBER)
def set_pages(player: Player, index: int, number: int) -> Any:
    book = player.pick(Book, index)
    if book is not None:
        book.pages = number * 50 - 50
    return book


@deed("change", index=INDEX)
def set_by_expression(player: Player, index: int) -> Any:
    book = player.pick(Book, index)
    if book is not None:
        book.pages = Book.pages + 1
    return None


@deed("change", index=INDEX, other=INDEX)
def give_book(player: Player, index: int, other: int) -> Any:
    author, book = player.pick(Author, index), player.pick(Book, other)
    if author is not None and book is not None:
        author.books.append(book)
    return author


@deed("change", index=INDEX)
def take_book(player: Player, index: int) -> Any:
    author = player.pick(Author, index)
    return author.books.pop() if author is not None and author.books else None


@deed("change", index=INDEX, other=INDEX)
def tag_book(player: Player, index: int, other: int) -> Any:
    book, tag = player.pick(Book, index), player.pick(Tag, other)
    if book is not None and tag is not None:
        (book.tags.remove if tag in book.tags else book.tags.append)(tag)
    return book


@deed("change", session=SESSION, kind=CLASS, index=INDEX)
def delete_object(player: Player, session: int, kind: str, index: int) -> Any:
    known = player.pick(CLASSES[kind], index)
    if known is not None:
        player.session(session).delete(known)
    return known


@deed("change", session=SESSION)
def flush(player: Player, session: int) -> Any:
    player.session(session).flush()


@deed("object", session=SESSION, kind=CLASS, index=INDEX, load=BOOLEANS)
def merge(player: Player, session: int, kind: str, index: int, load: bool) -> Any:
    known = player.pick(CLASSES[kind], index)
    return known and player.session(session).merge(known, load=load)


@deed("object", session=SESSION, key=KEY, name=NAME)
def merge_transient(player: Player, session: int, key: int, name: str) -> Any:
    return player.session(session).merge(Author(id=key, name=name, books=[Book(id=key, title=name)]))


@deed("object", session=SESSION, kind=CLASS, index=INDEX)
def expunge(player: Player, session: int, kind: str, index: int) -> Any:
    known = player.pick(CLASSES[kind], index)
    if known is not None:
        player.session(session).expunge(known)
    return known


@deed("object", session=SESSION, kind=CLASS, index=INDEX)
def add_again(player: Player, session: int, kind: str, index: int) -> Any:
    """What was detached, or belongs to the other session."""
    known = player.pick(CLASSES[kind], index)
    if known is not None:
        player.session(session).add(known)
    return known


@deed("object", session=SESSION, kind=CLASS, index=INDEX)
def expire(player: Player, session: int, kind: str, index: int) -> Any:
    known = player.pick(CLASSES[kind], index)
    if known is not None:
        player.session(session).expire(known)
    return known


@deed("object", session=SESSION, index=INDEX, names=(("name",), ("books",), ("bio", "rank")))
def expire_attributes(player: Player, session: int, index: int, names: tuple[str, ...]) -> Any:
    author = player.pick(Author, index)
    if author is not None:
        player.session(session).expire(author, names)
    return author


@deed("object", session=SESSION)
def expire_all(player: Player, session: int) -> Any:
    player.session(session).expire_all()
    return count_of(player, session)


@deed("object", session=SESSION)
def expunge_all(player: Player, session: int) -> Any:
    player.session(session).expunge_all()
    return count_of(player, session)


@deed("object", session=SESSION, index=INDEX)
def look_at_history(player: Player, session: int, index: int) -> Any:
    author = player.pick(Author, index)
    return author and [list(part or ()) for part in inspect(author).attrs.name.load_history()]


@deed("object", session=SESSION, index=INDEX)
def change_without_autoflush(player: Player, session: int, index: int) -> Any:
    author = player.pick(Author, index)
    with player.session(session).no_autoflush:
        if author is not None:
            author.rank = 9
        return player.session(session).scalars(select(Author).order_by(Author.id)).all()


# in bulk


@deed("bulk", session=SESSION, name=NAME, number=NUMBER)
def insert_many(player: Player, session: int, name: str, number: int) -> Any:
    rows = [{"label": f"{name} {index}"} for index in range(number % 4 + 1)]
    return player.session(session).execute(insert(Tag), rows).rowcount


@deed("bulk", session=SESSION, name=NAME)
def insert_returning(player: Player, session: int, name: str) -> Any:
    rows = [{"name": name}, {"name": f"{name}2"}]
    query = insert(Author).returning(Author, sort_by_parameter_order=True)
    return player.session(session).scalars(query, rows).all()


@deed("bulk", session=SESSION, least=(0, 100), synchronize=SYNCHRONIZE)
def update_in_bulk(player: Player, session: int, least: int, synchronize: Any) -> Any:
    query = update(Book).where(Book.pages >= least).values(pages=Book.pages + 3)
    result = player.session(session).execute(query, execution_options={"synchronize_session": synchronize})
    return result.rowcount


@deed("bulk", session=SESSION, key=KEY, pages=(5, -5))
def update_by_key(player: Player, session: int, key: int, pages: int) -> Any:
    rows = [{"id": key, "rank": pages}, {"id": 1, "rank": pages + 1}]
    player.session(session).execute(update(Author), rows)


@deed("bulk", session=SESSION, key=KEY, pages=(5, -5))
def update_returning(player: Player, session: int, key: int, pages: int) -> Any:
    query = update(Book).where(Book.id == key).values(pages=pages).returning(Book)
    return player.session(session).scalars(query).all()


@deed("bulk", session=SESSION, key=KEY, synchronize=SYNCHRONIZE)
def delete_in_bulk(player: Player, session: int, key: int, synchronize: Any) -> Any:
    query = delete(Book).where(Book.id == key)
    return player.session(session).execute(query, execution_options={"synchronize_session": synchronize}).rowcount


@deed("bulk", session=SESSION, name=NAME)
def delete_returning(player: Player, session: int, name: str) -> Any:
    query = delete(Author).where(Author.name == name).returning(Author.id)
    return player.session(session).scalars(query).all()


@deed("bulk", session=SESSION, number=NUMBER)
def bulk_methods(player: Player, session: int, number: int) -> Any:
    player.session(session).bulk_save_objects([Audit(note=f"bulk {number}"), Audit(note="bulk")])
    player.session(session).bulk_insert_mappings(inspect(Tag), [{"label": f"bulk {number}"}])


@deed("bulk", session=SESSION, name=NAME)
def upsert(player: Player, session: int, name: str) -> Any:
    dialect: Any = postgresql if player.arm.is_postgresql else sqlite
    query = dialect.insert(Author).values(name=name, rank=1)
    query = query.on_conflict_do_update(index_elements=["name"], set_={"rank": query.excluded.rank + 1})
    return player.session(session).scalars(query.returning(Author.rank)).all()


@deed("bulk", session=SESSION)
def insert_from_select(player: Player, session: int) -> Any:
    query = insert(Audit).from_select(["note"], select(Author.name).order_by(Author.id))
    return player.session(session).execute(query).rowcount


@deed("bulk", session=SESSION)
def write_as_text(player: Player, session: int) -> Any:
    return player.session(session).execute(text("UPDATE author SET rank = rank + 1 WHERE id < 3")).rowcount


@deed("bulk", session=SESSION, number=NUMBER)
def write_as_text_returning(player: Player, session: int, number: int) -> Any:
    query = text("INSERT INTO audit (note) VALUES (:note) RETURNING id, note")
    return player.session(session).execute(query, {"note": f"text {number}"}).all()


@deed("bulk", "postgresql", session=SESSION)
def write_in_cte(player: Player, session: int) -> Any:
    changed = update(Book).where(Book.id == 1).values(pages=Book.pages + 1).returning(Book.pages).cte("changed")
    return player.session(session).scalars(select(changed.c.pages)).all()


@deed("bulk", "postgresql", session=SESSION)
def write_in_function(player: Player, session: int) -> Any:
    return player.session(session).scalar(select(func.note_it("called")))


@deed("bulk", "postgresql", session=SESSION)
def take_from_sequence(player: Player, session: int) -> Any:
    return player.session(session).scalar(text("SELECT nextval('ticket')"))
