"""The tables and classes that programs work on: one-to-many, many-to-many, a version, an enum, a deferred column."""

from __future__ import annotations

import enum
from typing import ClassVar

from sqlalchemy import CheckConstraint, Column, ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    calm = "calm"
    wild = "wild"


book_tag = Table(
    "book_tag",
    Base.metadata,
    Column("book_id", ForeignKey("book.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "author"
    __table_args__ = (CheckConstraint("length(name) < 12", name="short_name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    mood: Mapped[Mood] = mapped_column(default=Mood.calm)
    bio: Mapped[str] = mapped_column(default="", deferred=True)
    rank: Mapped[int] = mapped_column(server_default="7")
    books: Mapped[list[Book]] = relationship(back_populates="author", cascade="all, delete-orphan", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    __table_args__ = (CheckConstraint("pages >= 0", name="some_pages"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    pages: Mapped[int] = mapped_column(default=100)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    version: Mapped[int] = mapped_column()
    author: Mapped[Author | None] = relationship(back_populates="books")
    tags: Mapped[list[Tag]] = relationship(secondary=book_tag, back_populates="books", order_by="Tag.id")
    __mapper_args__: ClassVar = {"version_id_col": version}


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list[Book]] = relationship(secondary=book_tag, back_populates="tags", order_by="Book.id")


class Audit(Base):
    """What listeners and functions write."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]


TABLES = ("author", "book", "tag", "book_tag", "audit")
SEQUENCES = ("author_id_seq", "book_id_seq", "tag_id_seq", "audit_id_seq")

SEED = (
    "INSERT INTO author (id, name, mood, bio) VALUES (1, 'ada', 'calm', 'a'), (2, 'bob', 'wild', 'b'), "
    "(3, 'cyd', 'calm', 'c')",
    "INSERT INTO book (id, title, pages, author_id, version) VALUES (1, 'one', 10, 1, 1), (2, 'two', 200, 1, 1), "
    "(3, 'three', 30, 2, 1), (4, 'four', 400, NULL, 1)",
    "INSERT INTO tag (id, label) VALUES (1, 'red'), (2, 'blue')",
    "INSERT INTO book_tag (book_id, tag_id) VALUES (1, 1), (1, 2), (3, 1)",
)
