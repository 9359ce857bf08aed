from __future__ import annotations

import runpy
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    all_,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    distinct,
    except_,
    exists,
    extract,
    false,
    func,
    insert,
    intersect,
    lateral,
    literal,
    literal_column,
    not_,
    null,
    or_,
    over,
    select,
    tablesample,
    text,
    true,
    tuple_,
    type_coerce,
    union,
    union_all,
    update,
    values,
    within_group,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import asyncpg, psycopg
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
    undefer,
    with_loader_criteria,
    with_polymorphic,
)

from headgate import sql_words
from headgate.errors import ConfigError
from headgate.sql_types import Trusted
from headgate.sql_walk import MAX_DEPTH
from headgate.statements import (
    MAX_FORGOTTEN,
    MAX_KEPT_BYTES,
    Family,
    StatementClass,
    StatementProof,
    classify_text,
)

READ, WRITE, OTHER = StatementClass.READ, StatementClass.WRITE, StatementClass.OTHER


# --- what SQLAlchemy compiles ---------------------------------------------------------------------

metadata = MetaData()
user = Table(
    "user",  # reserved: every text has quoted names in it
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50)),
    Column("Mixed Case", Text),
    Column("born", Date),
    Column("seen_at", DateTime(timezone=True)),
    Column("balance", Numeric(10, 2)),
    Column("active", Boolean),
    Column("data", JSON),
    Column("photo", LargeBinary),
    Column("key", Uuid),
)
item = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("user.id")),
    Column("title", String),
    Column("price", Numeric),
)
document = Table(
    "document",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("body", postgresql.JSONB),
    Column("tags", postgresql.ARRAY(String)),
    Column("words", postgresql.TSVECTOR),
    Column("during", postgresql.TSTZRANGE),
    Column("address", postgresql.INET),
)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    biography: Mapped[str] = mapped_column(Text, deferred=True)
    books: Mapped[list[Book]] = relationship(back_populates="author")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "author"}  # noqa: RUF012


class Poet(Author):
    __tablename__ = "poet"
    id: Mapped[int] = mapped_column(ForeignKey("author.id"), primary_key=True)
    metre: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "poet"}  # noqa: RUF012


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    title: Mapped[str]
    pages: Mapped[int]
    author: Mapped[Author] = relationship(back_populates="books")


def common_reads() -> Iterator[Any]:
    u, i = user.c, item.c
    anon = select(i.user_id, func.count().label("n")).group_by(i.user_id).subquery()
    tree = select(i.id, i.title).where(i.id == 1).cte("tree", recursive=True)
    tree = tree.union_all(select(item.c.id, item.c.title).join(tree, tree.c.id == item.c.user_id))
    # plain queries
    yield select(user)
    yield select(user).where(u.id == 5)
    yield select(u.id, u["Mixed Case"].label("Label With Space")).order_by(u.name.desc().nulls_last())
    yield select(user).where(u.name.in_(["a", "b", "c"]), u.id.not_in([1, 2]))
    yield select(user).where(u.name.in_([]))
    yield select(user).where(u.id.in_(select(i.user_id).where(i.price > 3)))
    yield select(user).where(or_(u.name.like("a%"), u.name.ilike("%b"), u.name.not_like("c_", escape="/")))
    yield select(user).where(u.name.startswith("x", autoescape=True), u.name.contains("y"), u.name.endswith("z"))
    yield select(user).where(u.name.icontains("y"), not_(u.active), u.born.is_(None), u.name.is_not(null()))
    yield select(user).where(u.id.between(1, 5), u.name.is_distinct_from("x"), u.name.is_not_distinct_from("y"))
    yield select(user).where(and_(true(), or_(false(), u.active.is_(True))))
    yield select(user).limit(10).offset(20)
    yield select(user).limit(10)
    yield select(user).offset(5)
    yield select(u.name).distinct()
    yield select(u.id + 1, u.id - 1, u.id * 2, u.id / 2, u.id // 2, u.id % 7, -u.id, u.name + "x", u.name.concat("y"))
    yield select(u.id.bitwise_and(1), u.id.bitwise_or(2), u.id.bitwise_lshift(1), u.id.bitwise_not())
    yield select(
        literal(1), literal("it's"), literal_column("1.5"), literal_column("'x;y--z'"), null(), bindparam("p", 3)
    )
    yield select(tuple_(u.id, u.name).in_([(1, "a"), (2, "b")]))
    yield select(case((u.id == 1, "one"), (u.id == 2, "two"), else_="many"))
    yield select(case({"a": 1, "b": 2}, value=u.name, else_=0).label("rank"))
    # functions, casts
    yield select(func.count(), func.sum(i.price), func.avg(i.price), func.min(i.id), func.max(i.id))
    yield select(func.lower(u.name), func.coalesce(u.name, "x"), func.length(u.name), func.abs(u.id), func.round(u.id))
    yield select(func.current_timestamp(), func.current_date(), func.random(), func.nullif(u.id, 0))
    yield select(cast(u.id, String), cast(u.name, Integer), cast(u.balance, Numeric(12, 4)), type_coerce(u.id, String))
    yield select(extract("year", u.born), extract("epoch", u.seen_at), func.replace(u.name, "a", "b"))
    yield select(func.count(distinct(u.name)), func.count(u.id).filter(u.id > 5))
    # windows
    yield select(func.row_number().over(partition_by=u.name, order_by=u.id))
    yield select(func.sum(u.id).over(order_by=u.id, rows=(-2, 0)), func.rank().over(order_by=[u.id, u.name.desc()]))
    yield select(over(func.lag(u.id, 1), order_by=u.id), func.sum(u.id).over(range_=(None, 0), order_by=u.id))
    yield select(func.first_value(u.id).over(partition_by=[u.name, u.active]), func.ntile(4).over(order_by=u.id))
    # joins, subqueries
    yield select(user, item).join(item, u.id == i.user_id)
    yield select(user).join(item, isouter=True).where(i.id.is_(None))
    yield select(user).join(item, full=True)
    yield select(user, anon.c.n).join(anon, anon.c.user_id == u.id)
    yield select(user.alias("a"), user.alias("B c"))
    yield select(select(func.count(i.id)).where(i.user_id == u.id).scalar_subquery().label("items"), u.id)
    yield select(user).where(exists().where(i.user_id == u.id), ~exists(select(i.id).where(i.user_id == u.id)))
    yield select(exists(select(u.id)))
    yield select(u.name, func.count()).group_by(u.name).having(func.count() > 3).order_by(func.count().desc())
    # compounds, CTEs, values
    yield union(select(u.id), select(i.id)).order_by("id")
    yield union_all(select(u.id).limit(1).subquery().select(), select(i.id))
    yield except_(select(u.id), select(i.id))
    yield intersect(select(u.id), select(i.id))
    yield select(union_all(select(u.id), select(i.id)).subquery())
    yield select(select(u.id).cte("recent")).add_columns(literal(2))
    yield select(tree.c.id, tree.c.title)
    yield select(values(column("a", Integer), column("b", String), name="v").data([(1, "x"), (2, "y")]).cte())
    yield text("SELECT id, name FROM person WHERE id = :id AND name LIKE :name ORDER BY id LIMIT 3")
    yield text("select 1;").columns(column("a", Integer))
    yield select(text("a, b")).select_from(text("t")).where(text("a > :n"))
    # what users add to the text
    yield select(user).prefix_with("/* hint */").suffix_with("-- end")
    yield select(user).with_statement_hint("/*+ SeqScan(user) */")
    yield select(user.c.id).correlate(None)
    # json
    yield select(u.data["a"], u.data[("a", "b")], u.data["n"].as_integer(), u.data["s"].as_string())
    yield select(user).where(u.data["flag"].as_boolean(), u.data["x"].as_float() > 1.5)
    # ORM
    yield select(Author)
    yield select(Author).options(undefer(Author.biography))
    yield select(Author).options(joinedload(Author.books)).where(Author.name == "x").limit(5)
    yield select(Book).options(joinedload(Book.author, innerjoin=True))
    yield select(Book).join(Book.author).options(contains_eager(Book.author)).where(Author.name.like("x%"))
    yield select(Author).where(Author.books.any(Book.pages > 100), ~Author.books.any())
    yield select(Book).where(Book.author.has(name="x"))
    yield select(with_polymorphic(Author, [Poet]))
    yield select(Poet).order_by(Poet.metre)
    yield select(aliased(Book, name="b2")).options(with_loader_criteria(Book, lambda cls: cls.pages > 10))
    yield select(Author.id, func.count(Book.id)).join(Author.books).group_by(Author.id)
    yield select(Book.id).where(tuple_(Book.pages, Book.id) > tuple_(literal(5), literal(6))).limit(3)


def postgresql_reads() -> Iterator[Any]:
    u, d, i = user.c, document.c, item.c
    series = func.generate_series(1, 5).table_valued("n", with_ordinality="pos").alias("s")
    recordset = func.jsonb_to_recordset(d.body).table_valued(column("a", Integer), column("b", String))
    tree = select(i.id).where(i.id == 1).cte("tree", recursive=True)
    yield select(user).fetch(5)
    yield select(user).order_by(u.id).fetch(5, with_ties=True).offset(2)
    yield select(cast(u.seen_at, DateTime(timezone=True)), cast(u.id, postgresql.ARRAY(Integer)), cast(u.id, Interval))
    yield select(cast(u.id, postgresql.DOUBLE_PRECISION), cast(u.id, postgresql.JSONB), cast(u.id, postgresql.UUID))
    yield select(func.date_trunc("day", u.seen_at), u.seen_at.op("AT TIME ZONE")("UTC"), func.now() - u.seen_at)
    yield select(u.name.collate("C"), u.name.regexp_match("^a"), u.name.regexp_match("b", flags="i"))
    yield select(func.regexp_replace(u.name, "a", "b"), func.substring(u.name, 1, 3), func.string_agg(u.name, ","))
    yield select(func.array_agg(postgresql.aggregate_order_by(u.name, u.id.desc())), func.json_agg(u.name))
    yield select(within_group(func.percentile_cont(0.5), u.id), func.mode().within_group(u.id.desc()))
    yield select(func.count().filter(u.active).over(partition_by=u.name))
    yield select(u.name, func.count()).group_by(func.grouping_sets(tuple_(u.name), tuple_(u.active)))
    yield select(u.name, func.count()).group_by(func.cube(u.name, u.active))
    yield select(u.name, func.count()).group_by(u.id, func.rollup(u.name, u.active))
    yield select(d.body["a"]["b"].astext, d.body[("a", "b")].astext, d.body.contains({"a": 1}), d.body.has_key("k"))
    yield select(document).where(
        d.body.has_any(["a"]), d.body.has_all(["a"]), d.body.contained_by({}), d.body.path_exists("$.a")
    )
    yield select(d.body.delete_path(["a"]), func.jsonb_set(d.body, ["a"], {}), func.jsonb_array_elements(d.body))
    yield select(
        d.tags[1],
        d.tags[1:2],
        d.tags.contains(["a"]),
        d.tags.overlap(["b"]),
        literal("x") == any_(d.tags),
        all_(d.tags) == "y",
    )
    yield select(document).where(literal("x") == func.any(d.tags), func.cardinality(d.tags) > 2)
    yield select(postgresql.array([1, 2, 3]), postgresql.array([u.id, u.id]) + d.tags)
    yield select(document).where(d.words.match("cat & dog"), d.words.bool_op("@@")(func.to_tsquery("english", "cat")))
    yield select(func.ts_rank(d.words, func.plainto_tsquery("cat")).label("rank")).order_by(text("rank DESC"))
    yield select(document).where(d.during.contains(func.now()), d.during.overlaps(d.during))
    yield select(document).where(d.address.op("<<=")("10.0.0.0/8"))
    yield select(series.c.n, series.c.pos)
    yield select(recordset.render_derived(name="r", with_types=True))
    yield select(func.unnest(d.tags).column_valued("tag"))
    yield select(func.json_each(u.data).table_valued("key", "value").render_derived())
    yield select(user, lateral(select(item).where(i.user_id == u.id).limit(3)).alias("last_items"))
    yield select(tablesample(user, func.bernoulli(5), name="some", seed=literal(3)))
    yield select(values(column("a", Integer), name="v").data([(1,), (2,)]))
    yield select(select(u.id).cte("m").prefix_with("MATERIALIZED"), literal(1))
    yield select(tree.union(select(i.id).join(tree, tree.c.id == i.user_id)).suffix_with("CYCLE id SET c USING p"))
    yield select(func.similarity(u.name, "x"), u.name.op("%")("y"), u.name.op("<->")("z"))
    yield select(func.greatest(1, 2), func.least(u.id, 3), func.now(), func.gen_random_uuid(), func.pg_sleep(0.1))
    yield select(text("interval '1 day'"), text("date '2020-01-01'"), text("current_date"))
    yield select(user).with_hint(user, "ONLY", "postgresql")
    yield union(select(u.id).limit(1), select(i.id).limit(2)).limit(3)
    yield select(func.row(u.id, u.name), func.array_length(d.tags, 1), func.to_char(u.born, "YYYY"))


def sqlite_reads() -> Iterator[Any]:
    u = user.c
    yield select(func.group_concat(u.name), func.ifnull(u.name, "x"), func.julianday(u.born), func.iif(u.id, 1, 2))
    yield select(func.strftime("%s", u.born), func.date("now"), func.datetime("now"), func.json_extract(u.data, "$.a"))
    yield select(user).where(u.name.op("GLOB")("a*"), u.name.regexp_match("x"), u.name.match("y"))
    yield select(func.json_each(u.data).table_valued("key", "value"))
    yield select(user).with_hint(user, "NOT INDEXED", "sqlite")
    yield select(func.total(u.id), func.printf("%s", u.name), u.name.collate("NOCASE"), func.typeof(u.id))


def common_writes() -> Iterator[Any]:
    i = item.c
    moved = select(i.id).where(i.price > 3).cte("dear")
    yield insert(item).values(id=1, title="x")
    yield insert(item).values([{"title": "x"}, {"title": "y"}])
    yield insert(item).values(title=func.lower("X")).returning(i.id)
    yield insert(item).from_select(["id", "title"], select(user.c.id, user.c.name))
    yield insert(item).from_select(["id"], select(moved.c.id))
    yield update(item).values(title="x").where(i.id == 5)
    yield update(item).values(price=i.price + 1).where(i.id.in_([1, 2])).returning(i.id, i.price)
    yield update(item).values(title=select(user.c.name).where(user.c.id == i.user_id).scalar_subquery())
    yield update(Book).values(pages=Book.pages + 1).where(Book.author.has(name="x"))
    yield delete(item).where(i.id == 5)
    yield delete(item).where(i.id.in_(select(user.c.id))).returning(i.id)
    yield delete(Book)


def postgresql_writes() -> Iterator[Any]:
    i = item.c
    upsert = postgresql.insert(item).values(id=1, title="x")
    deleted = delete(item).where(i.id > 5).returning(i.id).cte("deleted")
    yield upsert.on_conflict_do_nothing()
    yield upsert.on_conflict_do_update(index_elements=[i.id], set_={"title": upsert.excluded.title}).returning(item)
    yield upsert.on_conflict_do_update(constraint="item_pkey", set_={"title": "y"}, where=i.price > 3)
    yield upsert.on_conflict_do_nothing(index_elements=[func.lower(i.title)], index_where=i.id > 3)
    yield update(item).values(title=user.c.name).where(user.c.id == i.user_id)
    yield delete(item).where(user.c.id == i.user_id)
    yield select(deleted.c.id)
    yield insert(item).from_select(["id"], select(deleted.c.id))
    yield select(item).with_for_update()
    yield select(item).with_for_update(nowait=True, of=item)
    yield select(item).with_for_update(skip_locked=True, key_share=True)
    yield select(item).with_for_update(read=True)
    yield select(item).with_for_update(read=True, key_share=True)
    yield select(Book).join(Book.author).with_for_update(of=Book)


def sqlite_writes() -> Iterator[Any]:
    upsert = sqlite.insert(item).values(id=1, title="x")
    yield upsert.on_conflict_do_nothing()
    yield upsert.on_conflict_do_update(index_elements=["id"], set_={"title": upsert.excluded.title})
    yield insert(item).prefix_with("OR REPLACE").values(id=1)
    yield update(item).prefix_with("OR IGNORE").values(id=1)


DIALECTS: dict[str, Dialect] = {
    "psycopg": psycopg.dialect(),
    "asyncpg": asyncpg.dialect(),
    "sqlite": pysqlite.dialect(),
}


def family_of(dialect: str) -> Family:
    return "sqlite" if dialect == "sqlite" else "postgresql"


def compiled(*sources: Iterator[Any], dialect: str) -> list[str]:
    options = {"compile_kwargs": {"render_postcompile": True}}
    return [str(statement.compile(dialect=DIALECTS[dialect], **options)) for source in sources for statement in source]


def compiled_reads(dialect: str) -> list[str]:
    return compiled(common_reads(), sqlite_reads() if dialect == "sqlite" else postgresql_reads(), dialect=dialect)


def compiled_writes(dialect: str) -> list[str]:
    return compiled(common_writes(), sqlite_writes() if dialect == "sqlite" else postgresql_writes(), dialect=dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_sqlalchemy_compiles_for_reading_is_a_read(dialect: str) -> None:
    refused = [sql for sql in compiled_reads(dialect) if classify_text(sql, family_of(dialect)) is not READ]
    assert refused == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_sqlalchemy_compiles_for_writing_is_a_write(dialect: str) -> None:
    wrong = [sql for sql in compiled_writes(dialect) if classify_text(sql, family_of(dialect)) is not WRITE]
    assert wrong == []


# --- hand-written texts ---------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden"
TABLE = list(runpy.run_path(str(GOLDEN / "statements" / "table.py"))["read_table"]())


@pytest.mark.parametrize("file", sorted({row.file for row in TABLE}))
def test_the_table_of_statements(file: str) -> None:
    rows = [row for row in TABLE if row.file == file]
    assert [row for row in rows if classify_text(row.sql, row.family).name != row.expected] == []


def test_the_table_says_nothing_twice() -> None:
    said = Counter((row.family, row.sql) for row in TABLE)
    assert [row for row, times in said.items() if times > 1] == []


@pytest.mark.parametrize(
    "sql",
    [
        "",
        " ",
        "SELECT 1\0",
        "SELECT '\0'",
        "SELECT '\ud800'",
        "SELECT 1\v",
        "SELECT\xa01",
        "SELECT 1 -- a\rDELETE FROM t",  # ends the comment for PostgreSQL, not for SQLite
        "\N{KELVIN SIGN} SELECT 1",
        "SELECT a LI\N{KELVIN SIGN}E 'b'",
        "\N{LATIN SMALL LETTER LONG S}ELECT 1",
        "\ufeffSELECT 1",
    ],
)
@pytest.mark.parametrize("family", ["postgresql", "sqlite"])
def test_characters_outside_of_sql(sql: str, family: Family) -> None:
    assert classify_text(sql, family) is OTHER


CLIENT_ENCODINGS = [
    *("big5", "cp866", "cp874", "cp949", "cp950", "euc_cn", "euc_jp", "euc_kr", "gb18030", "gbk", "johab", "koi8_r"),
    *("koi8_u", "shift_jis", "shift_jis_2004", "cp932", "utf_8", *(f"cp125{n}" for n in range(9))),
    *(f"iso8859_{n}" for n in range(1, 17) if n != 12),
]


@pytest.mark.parametrize("encoding", CLIENT_ENCODINGS)
def test_no_letter_reaches_the_server_as_a_quote_or_a_backslash(encoding: str) -> None:
    """In quotes any letter is welcome, but some encodings of clients have none for it but one of ASCII's."""
    for letter in map(chr, [*range(0x80, 0x3100), *range(0xFF00, 0xFFF0)]):
        if letter.encode(encoding, "ignore") in (b"'", b'"', b"\\"):
            assert classify_text(f"SELECT '{letter}'", "postgresql") is OTHER, hex(ord(letter))


@pytest.mark.parametrize("family", ["postgresql", "sqlite"])
def test_space_of_every_known_kind(family: Family) -> None:
    assert classify_text("\n\tSELECT\f1\r\n-- a\r\n/* b */\r\n  ", family) is READ


@pytest.mark.parametrize("sql", [b"SELECT 1", None, 5, ["SELECT 1"], type("Sub", (str,), {})("SELECT 1")])
def test_only_plain_text_is_read(sql: Any) -> None:
    assert classify_text(sql, "postgresql") is OTHER
    assert StatementProof("postgresql").classify(sql) is OTHER


def test_every_call_that_is_let_through_is_listed() -> None:
    for family, functions in (("postgresql", sql_words.POSTGRESQL_FUNCTIONS), ("sqlite", sql_words.SQLITE_FUNCTIONS)):
        for name in functions:
            argument = {"cast": "a AS text", "current_setting": "'a'"}.get(name, "a")
            assert classify_text(f"SELECT {name}({argument})", family) is READ
            assert classify_text(f"SELECT {name}_({argument})", family) is OTHER
            assert classify_text(f"SELECT s.{name}({argument})", family) is OTHER


@pytest.mark.parametrize(
    "name",
    [
        "nextval",
        "setval",
        "currval",
        "lastval",
        "set_config",
        "setseed",
        "pg_notify",
        "txid_current",
        "lo_import",
        "dblink",
    ],
)
def test_no_list_has_a_function_that_writes_or_needs_its_session(name: str) -> None:
    assert name not in sql_words.POSTGRESQL_FUNCTIONS | sql_words.SQLITE_FUNCTIONS


def test_depth_is_bounded() -> None:
    def nested(depth: int) -> str:
        return "SELECT " + "(" * depth + "1" + ")" * depth

    assert classify_text(nested(MAX_DEPTH), "postgresql") is READ
    assert classify_text(nested(MAX_DEPTH + 1), "postgresql") is OTHER


def test_length_is_bounded_in_bytes() -> None:
    def padded(size: int, letter: str = "a") -> str:
        return f"SELECT '{letter * size}'"

    limit = sql_words.MAX_TEXT_BYTES - len(padded(0))
    assert classify_text(padded(limit), "postgresql") is READ
    assert classify_text(padded(limit + 1), "postgresql") is OTHER
    assert classify_text(padded(limit // 2 + 1, "ü"), "postgresql") is OTHER


def test_tokens_are_bounded() -> None:
    assert classify_text("SELECT 1" + ",1" * 1_000, "postgresql") is READ
    assert classify_text("SELECT 1" + ",1" * sql_words.MAX_TOKENS, "postgresql") is OTHER


def test_work_grows_with_the_text_and_no_faster() -> None:
    def calls(size: int) -> int:
        """Python functions entered for a text that uses every kind of token; a count, so no clock is needed."""
        part = ", lower(a.b) || 'c' + CAST(d[1] AS numeric(10, 2)) AS x, (SELECT count(*) FROM t WHERE \"e\" = $1)"
        count = 0

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(profile)
        try:
            found = classify_text("SELECT 1" + part * size, "postgresql")
        finally:
            sys.setprofile(None)
        assert found is READ
        return count

    base = calls(0)
    assert calls(400) - base == pytest.approx(10 * (calls(40) - base), rel=0.02)


# --- what is trusted beside -----------------------------------------------------------------------


def test_listed_functions_and_types_are_trusted() -> None:
    proof = StatementProof("postgresql", read_functions=["Score", "mood"])
    assert proof.classify("SELECT score(a), a::mood, CAST(a AS mood) FROM t") is READ
    assert proof.classify("UPDATE t SET a = SCORE(b), c = $1::mood") is WRITE
    assert proof.classify('SELECT "score"(a), s.score(a)') is OTHER
    assert proof.classify("SELECT a::s.mood") is OTHER
    assert StatementProof("postgresql").classify("SELECT score(a)") is OTHER


LEARNED_CASTS = [
    "SELECT a::mood FROM t",
    "SELECT $1::MOOD, %(a)s::Mood, CAST(a AS mood), CAST(%s AS mood[]) FROM t",
    "SELECT a FROM t WHERE b = %(b)s::mood AND c = ANY (%(c)s::mood[]) AND d IN ($1::mood, $2::mood)",
    'SELECT a::"mood", $1::"Mood", CAST(a AS "Mood"), a::"Mood"[]::text[] FROM t',
    'SELECT a::app.mood, CAST(a AS app.mood), $1::"App"."Mood", a::app."mood"[] FROM t',
    "SELECT CASE WHEN a THEN 'sad'::mood ELSE b::mood END::text FROM t",
    "SELECT * FROM jsonb_to_recordset('[]') AS r(a integer, b mood, c app.mood, d \"Mood\"[])",
    'SELECT a::"two words", a::"größe" AS b FROM t',
]


@pytest.mark.parametrize("sql", LEARNED_CASTS)
def test_a_cast_to_a_learned_type_is_a_read(sql: str) -> None:
    proof = StatementProof("postgresql")
    assert proof.classify(sql) is OTHER
    proof.learn_types(["Mood", "two words", "größe"])
    assert proof.classify(sql) is READ


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT mood(a)",
        "SELECT mood('sad')",
        "SELECT mood 'sad'",
        "SELECT \"mood\" 'sad'",
        "SELECT app.mood('sad')",
        "SELECT app.mood 'sad'",
        "SELECT a::mood('sad')(1)",
        "SELECT a::mood(f(1))",
        "SELECT a::mood.b",
        "SELECT a::app.mood.b",
        "SELECT a::b.app.mood",
        "SELECT a::app.other",
        'SELECT a::"mood""s"',
        'SELECT a::"mood" "s"',
        'SELECT a::"mood"/**/"s"',
        'SELECT a::"s""mood"',
        'SELECT a::"app""x".mood',
        'SELECT a::app."mood""s"',
        "SELECT a::$1.mood",
        "SELECT a::'app'.mood",
        "SELECT CAST(a AS mood.mood.mood)",
        "SELECT a::moody",
        "SELECT a::_mood",
        "SELECT a::mood%TYPE",
        "SELECT a::t.mood%TYPE",
        "SELECT * FROM json_to_record('{}') mood (a mood)",
    ],
)
def test_a_learned_type_is_nothing_else(sql: str) -> None:
    proof = StatementProof("postgresql")
    proof.learn_types(["mood"])
    assert proof.classify(sql) is OTHER


def test_names_that_no_text_can_be_compared_with_are_not_learned() -> None:
    proof = StatementProof("postgresql")
    names = ['a"b', "a%b", "a\\b", "a\0b", ""]
    proof.learn_types(names)
    assert [name for name in names if proof.classify(f'SELECT a::"{name}"') is not OTHER] == []
    assert proof.classify('SELECT a::"a""b", a::"a"') is OTHER


def test_learning_makes_others_be_looked_at_again_and_nothing_else(read_count: dict[str, int]) -> None:
    proof = StatementProof("postgresql")
    texts = {"SELECT 1": READ, "DELETE FROM t": WRITE, "SELECT f(1)": OTHER, "SELECT a::mood": OTHER}
    for sql in texts:
        assert proof.classify(sql) is texts[sql]
    proof.learn_types(["mood"])
    assert {sql: proof.classify(sql) for sql in texts} == {**texts, "SELECT a::mood": READ}
    assert list(read_count.values()) == [1, 1, 2, 2]
    proof.learn_types(["mood"])
    proof.learn_types([])
    assert proof.classify("SELECT f(1)") is OTHER
    assert list(read_count.values()) == [1, 1, 2, 2], "nothing was new"
    proof.learn_types(["colour"])
    assert proof.classify("SELECT a::mood, b::colour") is READ, "what is learned adds up"


def test_what_was_learned_while_a_text_was_read_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = StatementProof("postgresql")

    def learning_meanwhile(sql: str, *rest: Any) -> StatementClass:
        found = classify_text(sql, *rest)
        proof.learn_types(["mood"])
        return found

    monkeypatch.setattr("headgate.statements.classify_text", learning_meanwhile)
    assert proof.classify("SELECT a::mood") is OTHER
    assert proof.classify("SELECT a::mood") is READ


def test_a_forgotten_proof_is_not_learned_again() -> None:
    proof = StatementProof("postgresql")
    proof.learn_types(["mood"])
    assert proof.classify("SELECT a::mood") is READ
    proof.forget("SELECT a::mood")
    proof.learn_types(["colour"])
    assert proof.classify("SELECT a::mood") is OTHER


@pytest.mark.parametrize("name", ["s.f", '"f"', "f()", "", "é", "f g", "f\n"])
def test_a_name_that_cannot_be_listed(name: str) -> None:
    with pytest.raises(ConfigError, match="read_functions"):
        StatementProof("postgresql", read_functions=[name])


def test_unusable_options() -> None:
    with pytest.raises(ConfigError, match="mysql"):
        StatementProof("mysql")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="-1"):
        StatementProof("sqlite", memo_bytes=-1)


# --- the memo -------------------------------------------------------------------------------------


@pytest.fixture
def read_count(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each text was really read, as opposed to remembered."""
    counts: dict[str, int] = {}

    def counting(sql: str, *rest: Any) -> StatementClass:
        counts[sql] = counts.get(sql, 0) + 1
        return classify_text(sql, *rest)

    monkeypatch.setattr("headgate.statements.classify_text", counting)
    return counts


def numbered(number: int, size: int = 0) -> str:
    return f"SELECT '{'x' * size}', {number}"


def test_a_known_text_is_not_read_again(read_count: dict[str, int]) -> None:
    proof = StatementProof("sqlite")
    for sql in ["SELECT 1", "DELETE FROM t", "PRAGMA x"] * 3:
        assert proof.classify(sql) is classify_text(sql, "sqlite")
    assert set(read_count.values()) == {1}


def test_what_is_used_stays_and_the_rest_goes(read_count: dict[str, int]) -> None:
    proof = StatementProof("sqlite", memo_bytes=20_000)
    for number in range(1, 2_000):
        proof.classify(numbered(0))
        proof.classify(numbered(number))
    proof.classify(numbered(1))
    assert read_count[numbered(0)] == 1
    assert read_count[numbered(1)] == 2


def test_the_memo_is_bounded_in_bytes() -> None:
    proof = StatementProof("sqlite", memo_bytes=50_000)
    texts = [f"SELECT '{'ü☃' * (number % 300)}', {number}" for number in range(500)]
    for sql in texts:
        proof.classify(sql)
    held = {**proof._old, **proof._young}
    assert 0 < sum(map(sys.getsizeof, held)) <= 50_000


def test_a_memo_of_no_size_keeps_nothing(read_count: dict[str, int]) -> None:
    proof = StatementProof("sqlite", memo_bytes=0)
    assert [proof.classify("SELECT 1"), proof.classify("SELECT 1")] == [READ, READ]
    assert read_count == {"SELECT 1": 2}


def test_long_texts_are_not_kept(read_count: dict[str, int]) -> None:
    proof = StatementProof("sqlite")
    long = numbered(1, MAX_KEPT_BYTES)
    assert [proof.classify(long), proof.classify(long)] == [READ, READ]
    assert read_count == {long: 2}


@pytest.mark.parametrize("size", [0, 4_000, 6_000, MAX_KEPT_BYTES, 100_000, 260_000])
@pytest.mark.parametrize("known_before", [True, False])
def test_a_forgotten_proof_does_not_come_back(size: int, known_before: bool) -> None:
    proof = StatementProof("sqlite", memo_bytes=10_000)
    wrong, right = numbered(-1, size), numbered(-2, size)
    if known_before:
        assert proof.classify(wrong) is READ
    proof.forget(wrong)
    assert proof.classify(wrong) is OTHER
    for number in range(1_000):  # drives it out of both generations
        assert proof.classify(numbered(number)) is READ
    assert proof.classify(wrong) is OTHER
    assert proof.classify(right) is READ


def test_a_forgotten_text_is_not_read_again(read_count: dict[str, int]) -> None:
    proof = StatementProof("sqlite")
    long = numbered(1, MAX_KEPT_BYTES)
    proof.forget(long)
    assert [proof.classify(long), proof.classify(long)] == [OTHER, OTHER]
    assert read_count == {}


def test_a_proof_forgotten_while_it_is_made_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = StatementProof("sqlite")

    def forgotten_meanwhile(sql: str, *rest: Any) -> StatementClass:
        proof.forget(sql)
        return classify_text(sql, *rest)

    monkeypatch.setattr("headgate.statements.classify_text", forgotten_meanwhile)
    assert proof.classify("SELECT 1") is OTHER
    assert proof.classify("SELECT 1") is OTHER


def test_forgotten_proofs_are_bounded() -> None:
    proof = StatementProof("sqlite", memo_bytes=0)
    for number in range(MAX_FORGOTTEN + 1):
        proof.forget(numbered(number))
    assert proof.classify(numbered(0)) is READ
    assert proof.classify(numbered(1)) is OTHER
    assert proof.classify(numbered(MAX_FORGOTTEN)) is OTHER


def test_what_is_forgotten_again_is_the_youngest() -> None:
    proof = StatementProof("sqlite", memo_bytes=0)
    for number in range(MAX_FORGOTTEN):
        proof.forget(numbered(number))
    proof.forget(numbered(0))
    proof.forget(numbered(MAX_FORGOTTEN))
    assert proof.classify(numbered(0)) is OTHER
    assert proof.classify(numbered(1)) is READ


class ProofMachine(RuleBasedStateMachine):
    """However texts, proofs and types come and go: what is said is what the text alone says, less what is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.proof = StatementProof("postgresql", memo_bytes=3_000)
        self.learned: frozenset[str] = frozenset()
        self.forgotten: set[str] = set()

    texts = st.builds(
        "{} /* {} */".format,
        st.sampled_from(["SELECT 1", "DELETE FROM t", "SELECT f(1)", "SELECT a::mood", "SELECT a::s.colour, b::mood"]),
        st.integers(0, 30).map(lambda number: "x" * number**2),
    )

    @rule(sql=texts)
    def classify(self, sql: str) -> None:
        expected = OTHER if sql in self.forgotten else classify_text(sql, "postgresql", Trusted(types=self.learned))
        assert self.proof.classify(sql) is expected

    @rule(sql=texts)
    def forget(self, sql: str) -> None:
        self.proof.forget(sql)
        self.forgotten.add(sql)

    @rule(names=st.sets(st.sampled_from(["mood", "colour", "size"])))
    def learn(self, names: set[str]) -> None:
        self.proof.learn_types(names)
        self.learned |= names

    @invariant()
    def is_bounded(self) -> None:
        held = {**self.proof._old, **self.proof._young}
        assert sum(map(sys.getsizeof, held)) <= 3_000


TestProofMachine = ProofMachine.TestCase


def test_threads_share_one_proof() -> None:
    proof = StatementProof("sqlite", memo_bytes=5_000)
    wrong: list[str] = []

    def work() -> None:
        for number in range(2_000):
            proof.learn_types([f"type_{number}"])
            sql = numbered(number % 97) if number % 3 else f"DELETE FROM t{number % 89}"
            if proof.classify(sql) is not (READ if number % 3 else WRITE):
                wrong.append(sql)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
