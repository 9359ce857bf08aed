"""Random selects as SQLAlchemy compiles them, with their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    Select,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, psycopg
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, joinedload, mapped_column, relationship

Draw = Callable[[st.SearchStrategy[Any]], Any]
DIALECT = psycopg.dialect()


class Base(DeclarativeBase):
    pass


class A(Base):
    """The table ``a`` of the world."""

    __tablename__ = "a"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]
    s: Mapped[str] = mapped_column(Text)
    b: Mapped[bool] = mapped_column(Boolean)
    t: Mapped[Any] = mapped_column(DateTime(timezone=True))
    j: Mapped[Any] = mapped_column(JSONB)
    xs: Mapped[Any] = mapped_column(ARRAY(Integer))
    m: Mapped[str] = mapped_column(Enum("happy", "sad", name="mood"))
    children: Mapped[list[C]] = relationship()


class C(Base):
    """The table ``c`` of the world."""

    __tablename__ = "c"
    id: Mapped[int] = mapped_column(ForeignKey("a.id"), primary_key=True)


NUMBERS = st.integers(-3, 9)
WORDS = st.sampled_from(["a", "it's", "%s", "100%", "; DELETE FROM a", '"', "", "ü"])


def numbers(draw: Draw, of: Any) -> ColumnElement[Any]:
    """An expression that is a number."""
    return draw(
        st.sampled_from(
            [
                of.n,
                of.id + draw(NUMBERS),
                literal(draw(NUMBERS)),
                func.coalesce(of.n, draw(NUMBERS)),
                func.length(of.s),
                case((of.b, draw(NUMBERS)), else_=of.n),
                cast(of.j["i"].astext, Integer),
                func.cardinality(of.xs),
                func.row_number().over(partition_by=of.n, order_by=of.id),
                select(func.count(C.id)).where(C.id == of.id).correlate(of).scalar_subquery(),
            ]
        )
    )


def conditions(draw: Draw, of: Any) -> ColumnElement[bool]:
    """An expression that is true or false."""
    number, word = draw(NUMBERS), draw(WORDS)
    simple = [
        of.n == number,
        of.n.in_(draw(st.lists(NUMBERS, max_size=3))),
        of.n.between(number, 5),
        of.n % 3 == number,
        of.s.like(f"{word}%"),
        of.s.icontains(word, autoescape=True),
        of.s.is_(None),
        of.s.is_distinct_from(word),
        of.m == "sad",
        of.m.in_(["sad", "happy"]),
        of.xs.contains([number]),
        func.any(of.xs) == number,
        of.j.has_key("k"),
        of.j["k"].astext == word,
        exists().where(C.id == of.id).correlate(of),
        of.id.in_(select(C.id).where(C.id > number)),
    ]
    one, other = draw(st.sampled_from(simple)), draw(st.sampled_from(simple))
    return draw(st.sampled_from([one, and_(one, other), or_(one, ~other)]))


@st.composite
def selects(draw: Draw) -> tuple[str, dict[str, Any]]:
    """The text of a select for psycopg, and its parameters."""
    compiled = _select(draw).compile(dialect=DIALECT, compile_kwargs={"render_postcompile": True})
    return str(compiled), dict(compiled.params)


def _select(draw: Draw) -> Select[Any]:
    of = draw(st.sampled_from([A, aliased(A), aliased(A, name="for update")]))
    shape = draw(st.sampled_from(["entity", "columns", "grouped", "joined", "eager", "cte", "union"]))
    if shape == "grouped":
        return select(of.n, func.count(), func.array_agg(of.s)).group_by(of.n).having(func.count() > draw(NUMBERS))
    if shape == "cte":
        inner = select(of.id, of.s).where(conditions(draw, of)).cte("x y")
        return select(inner.c.s, func.lower(inner.c.s)).join(A, A.id == inner.c.id)
    if shape == "union":
        return select(union_all(select(numbers(draw, of)), select(numbers(draw, of))).subquery())
    return _narrowed(draw, _plain(draw, of, shape), of)


def _plain(draw: Draw, of: Any, shape: str) -> Select[Any]:
    if shape == "columns":
        return select(numbers(draw, of).label("one"), numbers(draw, of), of.s)
    if shape == "joined":
        return select(of, C).join(C, C.id == of.id, isouter=draw(st.booleans()))
    if shape == "eager":
        return select(of).options(joinedload(of.children))
    return select(of)


def _narrowed(draw: Draw, stmt: Select[Any], of: Any) -> Select[Any]:
    if draw(st.booleans()):
        stmt = stmt.where(conditions(draw, of))
    if draw(st.booleans()):
        stmt = stmt.order_by(of.s.desc().nulls_last(), of.id).limit(draw(st.integers(0, 3))).offset(1)
    return stmt
