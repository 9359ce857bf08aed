# ruff: noqa: E501 -- one statement is one line
from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
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
from headgate.statements import (
    MAX_DEPTH,
    MAX_FORGOTTEN,
    MAX_KEPT_BYTES,
    Family,
    StatementClass,
    StatementProof,
    classify_text,
)

READ, WRITE, OTHER = StatementClass.READ, StatementClass.WRITE, StatementClass.OTHER


def rows(block: str) -> list[str]:
    """One statement a line; empty lines and lines that begin with ``#`` only divide."""
    lines = (line.strip() for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


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

POSTGRESQL_READS = rows(
    """
    SELECT
    SELECT 1
    select 1;
    SELECT 1 ; -- done
    ((SELECT 1))
    (SELECT 1) UNION ALL (SELECT 2) ORDER BY 1 LIMIT 3
    VALUES (1, 'a'), (2, 'b')
    SELECT * FROM t
    SELECT t.*, "T".* FROM t, s."T"
    SELECT 'it''s', '', 'a;b--c/*d', 'INSERT INTO t', 'ünïcode ☃'
    SELECT "a""b", "for update", "ünïcode", "insert" FROM "into"
    SELECT t.set, t.update, t.into, t.lock FROM t
    SELECT /* a comment */ 1 -- another
    SELECT 1 /* 100%% sure */
    SELECT 1, 1.5, .5, 1e5, 2., 1.5e3
    SELECT a=-1, b<-1, c*-1, a+-1, a-1, -a FROM t
    SELECT a FROM t WHERE a LIKE 'x%%' AND b NOT LIKE '%%y' ESCAPE '/'
    SELECT a FROM t JOIN u ON t.a LIKE u.a ESCAPE '/' AND t.b NOT ILIKE (u.b) AND t.c BETWEEN 1 AND 2
    SELECT a FROM t WHERE a LIKE 'x%' AND b ILIKE '%x%' AND c SIMILAR TO '(a|b)%'
    SELECT a FROM t WHERE a=%s AND b=%(b)s AND c>%(c)s::INTEGER[] AND d %% 2 = 0
    SELECT a FROM t WHERE a = $1 AND b = $2::VARCHAR AND c % 2 = 0
    SELECT a FROM t WHERE a IN (%s, %s) AND b NOT IN ($1) AND (a, b) IN ((1, 2))
    SELECT a::text, a::varchar(10), a::numeric(10, 2), a::int[], a::int[][], a::int[3], a::bigint array FROM t
    SELECT a::double precision, a::character varying(10), a::timestamp with time zone FROM t
    SELECT a::timestamp(3) without time zone, a::time with time zone, a::bit varying(3)::text FROM t
    SELECT a::vector(3), a::halfvec, a::geometry(point, 4326), a::tsvector, a::regclass, a::uuid FROM t
    SELECT CAST(a AS text), CAST(a + 1 AS numeric(10, 2)), CAST(a AS timestamp with time zone) FROM t
    SELECT CAST((SELECT 1 AS b) AS integer), CAST(a AS interval day to second), CAST(a AS text[]) FROM t
    SELECT interval '1 day', date '2020-01-01', timestamp '2020-01-01', timestamp with time zone '2020-01-01'
    SELECT time '10:00', jsonb '{}', double precision '1.5', interval '1' day, interval %s
    SELECT now(), current_timestamp, current_timestamp(3), localtime, current_date, clock_timestamp()
    SELECT current_user, session_user, user, current_schema, current_catalog, current_setting('x', true)
    SELECT a AT TIME ZONE 'UTC', b AT TIME ZONE (SELECT zone FROM z), b at time zone $1::varchar FROM t
    SELECT a COLLATE "C", a COLLATE "de_DE" < b FROM t ORDER BY a COLLATE "C" DESC NULLS LAST
    SELECT a IS NULL, a IS NOT NULL, a ISNULL, a NOTNULL, a IS TRUE, a IS NOT DISTINCT FROM 3, a IS DISTINCT FROM (b) FROM t
    SELECT a BETWEEN 1 AND 2, a NOT BETWEEN SYMMETRIC (b) AND (c), (a, b) OVERLAPS (c, d) FROM t
    SELECT CASE WHEN (a) THEN (1) ELSE (2) END, CASE a WHEN 1 THEN 'x' END FROM t
    SELECT substring(a FROM 1 FOR 2), substring(a FROM 2), substring(a, 1, 2), substring((a) FROM (1) FOR (2)) FROM t
    SELECT overlay(a PLACING 'x' FROM 1 FOR 2), position('a' IN b), trim(BOTH FROM a), trim(LEADING 'x' FROM a) FROM t
    SELECT extract(epoch FROM a), extract(year from a - b), date_part('year', a) FROM t
    SELECT count(*), count(DISTINCT a), count(*) FILTER (WHERE a > 1), sum(a) FILTER (WHERE b) OVER (PARTITION BY c) FROM t
    SELECT array_agg(a ORDER BY b DESC), string_agg(DISTINCT a, ',' ORDER BY a), percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t
    SELECT rank() OVER w, sum(a) OVER (w ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM t WINDOW w AS (ORDER BY a), v AS (w)
    SELECT sum(a) OVER (ORDER BY b RANGE BETWEEN UNBOUNDED PRECEDING AND %(n)s FOLLOWING), lag(a, 1) OVER () FROM t
    SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > 1
    SELECT a, b FROM t GROUP BY GROUPING SETS ((a), (b), ()), a
    SELECT a, b, grouping(a) FROM t GROUP BY ROLLUP (a, b), CUBE (a)
    SELECT DISTINCT ON (a, b) a, b, c FROM t ORDER BY a, b
    SELECT ALL a FROM ONLY t, ONLY (u)
    SELECT a FROM t LIMIT ALL OFFSET 3 ROWS
    SELECT a FROM t ORDER BY a USING > LIMIT (SELECT 3) OFFSET (1 + 1)
    SELECT a FROM t FETCH FIRST 5 ROWS ONLY
    SELECT a FROM t OFFSET 1 ROW FETCH NEXT (%(n)s) ROWS WITH TIES
    SELECT a FROM t JOIN u ON t.id = u.id LEFT JOIN (SELECT 1 AS b) AS v ON true CROSS JOIN w NATURAL JOIN x
    SELECT a FROM t JOIN (u JOIN v USING (id)) USING (id) FULL OUTER JOIN (SELECT 1) AS z ON (true)
    SELECT a FROM t AS x (a, b), (VALUES (1, 'a')) AS y(c, d), "Q" AS "R"(e)
    SELECT a FROM t, LATERAL (SELECT b FROM u WHERE u.id = t.id LIMIT 1) AS v
    SELECT n FROM generate_series(1, 10) AS s(n), unnest(ARRAY[1, 2]) WITH ORDINALITY AS u(v, i)
    SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY['a'])) AS r(a, b)
    SELECT * FROM jsonb_to_recordset('[]') AS r(a int, b text, c numeric(10, 2), d timestamp with time zone)
    SELECT * FROM json_to_record('{}') AS (a int, b text[])
    SELECT * FROM t TABLESAMPLE bernoulli (10) REPEATABLE (3)
    SELECT * FROM t AS x TABLESAMPLE SYSTEM (%(n)s)
    WITH a AS (SELECT 1), b(x, y) AS (VALUES (1, 2)) SELECT * FROM a, b
    WITH a AS MATERIALIZED (SELECT 1), "B"("c d") AS NOT MATERIALIZED (SELECT 2) SELECT * FROM a
    WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t
    WITH RECURSIVE count(n) AS (SELECT 1) SELECT n FROM count
    WITH RECURSIVE t AS (SELECT 1 AS a) SEARCH DEPTH FIRST BY a, b SET o, u AS (SELECT 2) SELECT * FROM t
    WITH RECURSIVE t AS (SELECT 1 AS a) CYCLE a, b SET c TO 'y' DEFAULT 'n' USING p SELECT * FROM t
    WITH a AS (SELECT 1) (SELECT * FROM a) UNION SELECT 2 ORDER BY 1
    SELECT (WITH a AS (SELECT 1 AS n) SELECT n FROM a), ARRAY(SELECT 1), EXISTS (SELECT 1), ROW(1, 2)
    SELECT a = ANY (ARRAY[1, 2]), a > ALL (SELECT 1), a = SOME ($1::integer[]), ARRAY[[1, 2], [3, 4]]::int[] FROM t
    SELECT a[1], a[1:2], a[:n], a[%(i)s:%(j)s], (a)[1], data['key'], (t).a FROM t
    SELECT data -> 'a' ->> 'b', data #>> '{a,b}', data @> '{}', data ? 'k', data ?| $1, data @? '$.a', data @@ '$' FROM t
    SELECT jsonb_build_object('a', 1), jsonb_agg(t), row_to_json(t), json_object_agg(a, b), to_jsonb(t.a) FROM t
    SELECT jsonb_path_query(data, '$.a'), jsonb_set(data, '{a}', '1'), jsonb_array_elements_text(data -> 'x') FROM t
    SELECT to_tsvector('english', a) @@ plainto_tsquery($1), ts_rank(v, q), ts_headline(a, q) FROM t
    SELECT similarity(a, 'x'), a % 'x', a <-> 'x', a %% 'x' FROM t ORDER BY v <=> $1::vector LIMIT 5
    SELECT make_interval(days => 3), repeat('x', 3), format('%%I', a), left(a, 2), right(a, 2) FROM t
    SELECT st_dwithin(g, st_setsrid(st_makepoint(1, 2), 4326)::geography, 100), ST_AsGeoJSON(g) FROM t
    SELECT format_type(a.atttypid, a.atttypmod), to_regclass('t'), pg_table_is_visible(c.oid) FROM pg_class c
    SELECT pg_sleep(0.1), version(), random(), gen_random_uuid()
    SELECT groups.id, rows.id, range.id, search.a FROM groups, rows, range, search
    SELECT a FROM t WHERE a = %s ORDER BY (SELECT count(*) FROM u) DESC NULLS FIRST
    SELECT type, value, name, date, text, key, status, comment, start, level, position FROM t
    SELECT replace(a, 'x', 'y'), date(a), greatest(1, 2), coalesce(a, b), nullif(a, 0) FROM t
    """
)

SQLITE_READS = rows(
    """
    SELECT 1;
    SELECT a, ?1, :name, @name, ? FROM t WHERE b = :b AND c=?
    SELECT 'it''s', "quoted", 100%3, a||b, a->'$.x', a ->> 'y', a == 1, a <> 2, a != 3, ~a, -a FROM t
    SELECT a FROM t WHERE a LIKE '%s%' AND b GLOB '*' AND c REGEXP 'x' AND d MATCH 'y' AND e LIKE '%(x)s'
    SELECT a FROM t WHERE a IS (SELECT 1) AND b IS NOT 3 AND c NOTNULL
    SELECT count(*), group_concat(a, ','), total(a), iif(a, 1, 2), ifnull(a, 0), replace(a, 'x', 'y') FROM t
    SELECT strftime('%Y', a), date('now', '-1 day'), datetime(a), julianday(a), unixepoch() FROM t
    SELECT json_extract(a, '$.x'), json_each.value FROM t, json_each(t.a)
    SELECT CAST(a AS INTEGER), CAST(a AS VARCHAR(10)), CAST(a AS DOUBLE) FROM t
    SELECT a FROM t NOT INDEXED WHERE a = 1 COLLATE NOCASE
    SELECT a FROM t INDEXED BY ix LIMIT 3 OFFSET (1)
    SELECT sum(a) OVER (PARTITION BY b ORDER BY c ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), count(*) FILTER (WHERE a) FROM t
    WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c LIMIT 5) SELECT x FROM c
    VALUES (1, 2), (3, 4)
    SELECT (SELECT max(a) FROM t), EXISTS (SELECT 1), a IN (1, 2), a NOT IN (SELECT b FROM u) FROM t
    SELECT name FROM sqlite_master WHERE type = 'table'
    SELECT typeof(a), hex(a), quote(a), printf('%d', a), char(65), random(), current_timestamp FROM t
    """
)

POSTGRESQL_WRITES = rows(
    """
    INSERT INTO t DEFAULT VALUES
    INSERT INTO s.t AS x (a, "b c") VALUES (1, DEFAULT), (%s, $1::text) RETURNING *
    INSERT INTO t (a) OVERRIDING SYSTEM VALUE VALUES (1)
    INSERT INTO t SELECT * FROM u
    INSERT INTO t (a) (SELECT 1)
    INSERT INTO t (a) WITH x AS (SELECT 1 AS a) SELECT a FROM x
    INSERT INTO t (a) SELECT p0::VARCHAR FROM (VALUES (%(a__0)s, 0), (%(a__1)s, 1)) AS imp_sen(p0, sen_counter) ORDER BY sen_counter RETURNING t.id, t.id AS id__1
    INSERT INTO t (a, lock, "set") VALUES (1, 2, 3) ON CONFLICT (a, lower(b)) WHERE c DO UPDATE SET a = excluded.a WHERE t.a > 1
    INSERT INTO t (a) VALUES (1) ON CONFLICT ON CONSTRAINT t_pkey DO NOTHING
    INSERT INTO t (a) SELECT a FROM u ON CONFLICT (a) DO UPDATE SET (a, b) = (1, 2) RETURNING (a)
    UPDATE t SET a = 1, b = b + 1 WHERE c = %(c)s
    UPDATE ONLY t AS x SET (a, b) = (SELECT 1, 2), c = DEFAULT FROM u WHERE u.id = x.id RETURNING x.a
    UPDATE t SET a = now(), b = current_timestamp, c = lower(d), e[1] = 2
    DELETE FROM t
    DELETE FROM ONLY t USING u WHERE t.id = u.id RETURNING t.*
    WITH a AS (SELECT 1 AS n) DELETE FROM t USING a WHERE t.id = a.n
    WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d
    WITH d AS (UPDATE t SET a = 1 RETURNING id), e AS (SELECT 1) INSERT INTO u SELECT * FROM d
    MERGE INTO t USING u ON t.id = u.id WHEN MATCHED AND u.a > 1 THEN UPDATE SET a = u.a WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (a, b) VALUES (u.a, 2)
    MERGE INTO t USING u ON t.id = u.id WHEN NOT MATCHED BY SOURCE THEN DO NOTHING WHEN NOT MATCHED THEN INSERT DEFAULT VALUES
    SELECT * FROM t FOR UPDATE
    SELECT * FROM t, u FOR NO KEY UPDATE OF t, u NOWAIT
    SELECT * FROM t FOR SHARE SKIP LOCKED
    SELECT * FROM t FOR KEY SHARE OF t FOR UPDATE OF u
    SELECT * FROM (SELECT * FROM t FOR UPDATE) AS x
    SAVEPOINT sa_savepoint_1
    RELEASE SAVEPOINT sa_savepoint_1
    ROLLBACK TO SAVEPOINT "Sa";
    ROLLBACK TO sp
    RELEASE sp
    """
)

SQLITE_WRITES = rows(
    """
    INSERT INTO t (a) VALUES (?), (?) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING id
    INSERT OR REPLACE INTO t VALUES (?, ?)
    INSERT OR IGNORE INTO main.t (a) SELECT b FROM u
    REPLACE INTO t (a) VALUES (1)
    WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x
    UPDATE OR IGNORE t SET a = ? WHERE b = :b
    DELETE FROM t WHERE a IN (?, ?)
    SAVEPOINT sp
    ROLLBACK TRANSACTION TO SAVEPOINT sp
    """
)

# Neither read nor known DML in any family.
OTHERS = rows(
    r"""
    # nothing, or not a statement
    ;
    ;;
    1
    (1)
    garbage
    SELECT 1 garbage(
    # other statements
    EXPLAIN SELECT 1
    EXPLAIN ANALYZE DELETE FROM t
    TABLE t
    SHOW search_path
    SET x = 1
    SET LOCAL app.tenant = '1'
    SET ROLE admin
    SET SESSION AUTHORIZATION x
    RESET ALL
    DISCARD ALL
    BEGIN
    BEGIN READ WRITE
    COMMIT
    ROLLBACK
    ROLLBACK TO
    SAVEPOINT
    SAVEPOINT a b
    SAVEPOINT 'a'
    ROLLBACK; TO SAVEPOINT a
    RELEASE; a
    SAVEPOINT a; DELETE FROM t
    PREPARE TRANSACTION 'x'
    PREPARE p AS SELECT 1
    EXECUTE p
    DEALLOCATE p
    LISTEN c
    NOTIFY c
    UNLISTEN *
    LOCK TABLE t
    CALL p()
    DO 'BEGIN END'
    COPY t TO STDOUT
    COPY (SELECT 1) TO PROGRAM 'x'
    CREATE TABLE t (a int)
    CREATE TEMPORARY TABLE t AS SELECT 1
    DROP TABLE t
    ALTER TABLE t ADD a int
    TRUNCATE t
    GRANT ALL ON t TO x
    VACUUM
    REINDEX TABLE t
    DECLARE c CURSOR WITH HOLD FOR SELECT 1
    FETCH ALL FROM c
    REFRESH MATERIALIZED VIEW v
    PRAGMA journal_mode = WAL
    ATTACH 'x' AS y
    # a second statement
    SELECT 1; DELETE FROM t
    SELECT 1; SELECT 2
    SELECT 1;;
    SELECT (1;)
    SELECT 1 /* x */ ; /* y */ DROP TABLE t
    INSERT INTO t (a) VALUES (1); SELECT 1
    # into, lock, set and their like in the wrong place
    SELECT * INTO t FROM u
    SELECT 1 AS a INTO TEMP t
    SELECT a INTO t
    WITH x AS (SELECT 1) SELECT * INTO t FROM x
    INSERT INTO t SELECT 1 INTO u
    SELECT insert INTO t FROM u
    SELECT 1 WHERE set
    SELECT a FOR b
    SELECT * FROM t FOR READ ONLY
    SELECT * FROM t FOR
    SELECT (substring(a FROM 1) FOR 2) FROM t
    SELECT substring(a FROM lower(b FOR 2)) FROM t
    SELECT a RETURNING b
    SELECT call, copy
    SELECT table
    SELECT * FROM t ON CONFLICT DO NOTHING
    SELECT 1 AS insert
    # functions
    SELECT f(1)
    SELECT F (1)
    SELECT f/* x */(1)
    SELECT * FROM f(1)
    SELECT * FROM t, f(1) AS x
    SELECT a FROM t WHERE f(a) = 1
    SELECT lower(f(a)) FROM t
    SELECT count(*) FILTER (WHERE f(a)) FROM t
    SELECT count(*) OVER (ORDER BY f(a)) FROM t
    SELECT (SELECT f(1))
    SELECT CASE WHEN f(1) THEN 1 END
    SELECT 1 LIMIT f(1)
    SELECT "lower"('A')
    SELECT "f"(1)
    SELECT "f" (1)
    SELECT s.lower('A')
    SELECT pg_catalog.lower('A')
    SELECT "s".f(1)
    SELECT s."f"(1)
    SELECT s . f (1)
    SELECT s.t.f(1)
    SELECT setval('s', 1)
    SELECT nextval('s')
    SELECT currval('s')
    SELECT lastval()
    SELECT set_config('a', 'b', false)
    SELECT setseed(0.5)
    SELECT last_insert_rowid()
    SELECT changes()
    SELECT total_changes()
    SELECT load_extension('x')
    SELECT fts3_tokenizer('x', 'y')
    SELECT optimize(t) FROM t
    SELECT pg_notify('a', 'b')
    SELECT pg_advisory_lock(1)
    SELECT pg_try_advisory_xact_lock(1)
    SELECT pg_advisory_unlock_all()
    SELECT txid_current()
    SELECT pg_current_xact_id()
    SELECT pg_export_snapshot()
    SELECT pg_backend_pid()
    SELECT pg_terminate_backend(1)
    SELECT pg_cancel_backend(1)
    SELECT pg_reload_conf()
    SELECT pg_switch_wal()
    SELECT pg_stat_reset()
    SELECT pg_logical_emit_message(true, 'a', 'b')
    SELECT pg_replication_origin_session_setup('x')
    SELECT pg_create_restore_point('x')
    SELECT pg_read_file('x')
    SELECT lo_create(1)
    SELECT lo_unlink(1)
    SELECT lo_from_bytea(0, 'x')
    SELECT lo_import('x')
    SELECT dblink('a', 'b')
    SELECT dblink_exec('DELETE FROM t')
    SELECT query_to_xml('DELETE FROM t', true, true, '')
    SELECT table_to_xml('t', true, true, '')
    SELECT cursor_to_xml('c', 1, true, true, '')
    SELECT * FROM ts_stat('SELECT f()')
    SELECT ts_rewrite('a', 'SELECT f()')
    SELECT * FROM crosstab('SELECT 1')
    SELECT set_limit(0.5)
    SELECT gin_clean_pending_list('i')
    SELECT brin_summarize_new_values('i')
    INSERT INTO t (a) VALUES (nextval('s'))
    INSERT INTO t (a) VALUES (f(1))
    UPDATE t SET a = set_config('a', 'b', true)
    DELETE FROM t WHERE f(a)
    DELETE FROM t RETURNING s.f(a)
    SELECT pg_advisory_xact_lock(1) FROM t FOR UPDATE
    # keywords that are function names where an operand begins
    SELECT over(1)
    SELECT filter(1)
    SELECT join(1)
    SELECT DISTINCT join(1)
    SELECT a, join (1)
    SELECT * FROM join(1)
    SELECT ilike(1)
    SELECT NOT ilike(1)
    SELECT escape(1)
    SELECT is(1)
    SELECT by(1)
    SELECT zone(1)
    SELECT sets(1)
    SELECT cube(1)
    SELECT a, rollup(1)
    SELECT a FROM t GROUP BY a HAVING rollup(a)
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a), rollup(1) FROM t
    SELECT materialized(1)
    SELECT repeatable(1)
    SELECT bernoulli(1)
    SELECT first(1)
    SELECT conflict(1)
    SELECT set(1)
    SELECT update(1)
    SELECT do(1)
    SELECT ALL over(1)
    SELECT DISTINCT ON (a) over(1) FROM t
    SELECT DISTINCT ON (a) join(1) FROM t
    SELECT a FROM t JOIN u ON conflict(1)
    INSERT INTO t SELECT a FROM t JOIN u ON conflict(1)
    SELECT max(a ORDER BY b ROWS over(1)) FROM t
    SELECT a AT TIME ZONE over(1) FROM t
    UPDATE t SET a = set(1)
    # common table expressions that are calls
    SELECT * FROM a, f(x) AS (y int)
    WITH q AS (SELECT 1) SELECT * FROM q, f(x) AS (y int)
    WITH q AS (SELECT 1) (SELECT 1) ORDER BY 1, f(x)
    WITH q AS (SELECT 1) SELECT 1, f(x)
    WITH f(x) SELECT 1
    INSERT INTO t SELECT * FROM generate_series(1, 2) WITH ORDINALITY AS q(a, b), f(c) AS (d int)
    WITH f(lower(x)) AS (SELECT 1) SELECT 1
    WITH x AS (CREATE TABLE t AS SELECT 1) SELECT 1
    WITH x AS (SELECT f(1)) SELECT 1
    WITH x AS (INSERT INTO t (a) VALUES (f(1)) RETURNING a) SELECT 1
    # types
    SELECT CAST(a AS my_type) FROM t
    SELECT CAST(a AS s.text) FROM t
    SELECT CAST(a AS "text") FROM t
    SELECT CAST(a AS text.b) FROM t
    # characters, literals, comments
    SELECT 'a\' OR 1=1'
    SELECT E'a'
    SELECT e'a'
    SELECT B'1'
    SELECT X'1F'
    SELECT N'a'
    SELECT U&'a'
    SELECT U&"a"
    SELECT U&'a' UESCAPE '!'
    SELECT e 'a'
    SELECT _x'a'
    SELECT name'a'
    SELECT "name" 'a'
    SELECT t.name 'a' FROM t
    SELECT f(1) 'a'
    SELECT lower('a') 'b'
    SELECT 1 'a'
    SELECT 'a' 1
    SELECT $$a$$
    SELECT $a$b$a$
    SELECT a$b
    SELECT `a`
    SELECT {a}
    SELECT 1a
    SELECT 0x1F
    SELECT 1_000
    SELECT 1..2
    SELECT ünïcode
    SELECT naïve FROM t
    SELECT 1 # ü
    SELECT 'a
    SELECT "a
    SELECT 'a''
    SELECT 1 /* a
    SELECT 1 /* a /* b */ c */
    SELECT 1 /*/**/
    SELECT 1 /* ü */
    SELECT 1 -- ü
    SELECT (1
    SELECT 1)
    SELECT (1]
    SELECT a b 'c'
    SELECT 5 (1)
    SELECT 'f' (1)
    SELECT .a
    SELECT a..b
    SELECT a.
    SELECT a := 1
    SELECT a !! b
    """
)

POSTGRESQL_OTHERS = rows(
    """
    SELECT :a
    SELECT @a :b
    SELECT a %s
    SELECT %(a b)s
    SELECT %(a)d
    SELECT %s(1)
    SELECT %sx
    SELECT %(a)s(1)
    SELECT %(a)s.x
    SELECT %(a)s 'b'
    SELECT 'a %s b'
    SELECT '%(a)s'
    SELECT '%%%s'
    SELECT "a%s"
    SELECT 1 /* %s */
    SELECT 1 -- %(a)s
    SELECT a::my_enum FROM t
    SELECT a::s.text FROM t
    SELECT a::text.b FROM t
    SELECT a::"char" FROM t
    SELECT a::text(f(1)) FROM t
    SELECT a::int[f(1)] FROM t
    SELECT a::double FROM t
    SELECT my_type '1'
    SELECT * FROM json_to_record('{}') AS (a my_type)
    SELECT * FROM json_to_record('{}') AS x(a my_type)
    SELECT * FROM t AS x(lower(a))
    SELECT a OPERATOR(s.+) b FROM t
    SELECT a <<>> b FROM t
    SELECT current_timestamp(f(1))
    SELECT a[f(1)] FROM t
    SELECT ARRAY[f(1)]
    SELECT * FROM [DELETE FROM t RETURNING a]
    SELECT * FROM t TABLESAMPLE lower(1)
    SELECT * FROM t TABLESAMPLE ilike (1)
    SELECT * FROM json_to_record('{}') lower(a my_type)
    SELECT * FROM json_to_record('{}') over (a my_type)
    SELECT * FROM json_to_record('{}') row (a my_type)
    SELECT * FROM json_to_record('{}') values (a my_type)
    SELECT * FROM json_to_record('{}') between (a my_type)
    SELECT * FROM json_to_record('{}') exists (a my_type)
    SELECT * FROM json_to_record('{}') range (a my_type)
    SELECT * FROM json_to_record('{}') escape (a my_type)
    SELECT * FROM json_to_record('{}') repeatable (a my_type)
    SELECT (insert 'x')
    SELECT (update %s)
    SELECT by 'x', like 'y', rows 'z'
    SELECT join $1
    SELECT a =% b, a %%> = b
    SELECT a AS f(1)
    SELECT a AS lower(b)
    INSERT (a) VALUES (1)
    UPDATE t SET a = set 'x'
    SELECT * FROM ROWS FROM (f(1))
    SELECT * FROM t TABLESAMPLE f(1)
    SELECT * FROM t TABLESAMPLE system (f(1))
    SELECT * FROM XMLTABLE('/a' PASSING x COLUMNS a int)
    SELECT * FROM JSON_TABLE('{}', '$' COLUMNS (a int))
    SELECT json_value('{}', '$' RETURNING my_type)
    SELECT json_object('a' VALUE ilike(1))
    SELECT xmlserialize(CONTENT a AS my_type) FROM t
    SELECT TREAT(a AS my_type) FROM t
    SELECT COLLATION FOR (f(1))
    SELECT last_insert_rowid(), ifnull(1, 2)
    SELECT * FROM t FOR UPDATE OF f(1)
    SELECT f(1) FROM t FOR UPDATE
    REPLACE INTO t (a) VALUES (1)
    UPDATE pg_settings SET setting = '1'
    UPDATE pg_catalog."pg_settings" SET setting = '1'
    INSERT INTO t SELECT a FROM u JOIN v ON conflict (a)
    UPDATE t SET a = 1 RETURNING WITH (OLD AS o) o.a
    """
)

SQLITE_OTHERS = rows(
    """
    SELECT 'a' %s(1)
    SELECT * FROM pragma_optimize
    SELECT * FROM "pragma_optimize"
    SELECT * FROM 'Pragma_Optimize'
    SELECT * FROM pragma_table_info('t')
    SELECT [a] FROM t
    SELECT $a
    SELECT :a::b
    SELECT ?a
    SELECT a::text
    SELECT $1
    SELECT now()
    SELECT array(1)
    SELECT any(1)
    SELECT row(1)
    SELECT lateral(1)
    SELECT offset(1)
    SELECT writefile('x', 'y')
    SELECT edit('x')
    SELECT readfile('x')
    SELECT raise(ABORT, 'x')
    SELECT * FROM t FOR UPDATE
    SELECT a @> b FROM t
    MERGE INTO t USING u ON (1) WHEN MATCHED THEN f(1)
    """
)


@pytest.mark.parametrize(
    ("texts", "family", "expected"),
    [
        pytest.param(POSTGRESQL_READS, "postgresql", READ, id="postgresql reads"),
        pytest.param(SQLITE_READS, "sqlite", READ, id="sqlite reads"),
        pytest.param(POSTGRESQL_WRITES, "postgresql", WRITE, id="postgresql writes"),
        pytest.param(SQLITE_WRITES, "sqlite", WRITE, id="sqlite writes"),
        pytest.param(OTHERS, "postgresql", OTHER, id="others in postgresql"),
        pytest.param(OTHERS, "sqlite", OTHER, id="others in sqlite"),
        pytest.param(POSTGRESQL_OTHERS, "postgresql", OTHER, id="others of postgresql"),
        pytest.param(SQLITE_OTHERS, "sqlite", OTHER, id="others of sqlite"),
    ],
)
def test_hand_written_texts(texts: list[str], family: Family, expected: StatementClass) -> None:
    assert [sql for sql in texts if classify_text(sql, family) is not expected] == []


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
            argument = "a AS text" if name == "cast" else "a"
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


# --- read_functions -------------------------------------------------------------------------------


def test_listed_functions_and_types_are_trusted() -> None:
    proof = StatementProof("postgresql", read_functions=["Score", "mood"])
    assert proof.classify("SELECT score(a), a::mood, CAST(a AS mood) FROM t") is READ
    assert proof.classify("UPDATE t SET a = SCORE(b), c = $1::mood") is WRITE
    assert proof.classify('SELECT "score"(a), s.score(a)') is OTHER
    assert proof.classify("SELECT a::s.mood") is OTHER
    assert StatementProof("postgresql").classify("SELECT score(a)") is OTHER


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


@pytest.mark.parametrize("size", [0, MAX_KEPT_BYTES])
@pytest.mark.parametrize("known_before", [True, False])
def test_a_forgotten_proof_does_not_come_back(size: int, known_before: bool) -> None:
    proof = StatementProof("sqlite", memo_bytes=10_000)
    wrong = numbered(-1, size)
    if known_before:
        assert proof.classify(wrong) is READ
    proof.forget(wrong)
    assert proof.classify(wrong) is OTHER
    for number in range(1_000):  # drives it out of both generations
        assert proof.classify(numbered(number)) is READ
    assert proof.classify(wrong) is OTHER


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


def test_threads_share_one_proof() -> None:
    proof = StatementProof("sqlite", memo_bytes=5_000)
    wrong: list[str] = []

    def work() -> None:
        for number in range(2_000):
            sql = numbered(number % 97) if number % 3 else f"DELETE FROM t{number % 89}"
            if proof.classify(sql) is not (READ if number % 3 else WRITE):
                wrong.append(sql)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
