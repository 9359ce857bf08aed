"""No statement that is proved a read changes anything: random statements, judged, run, and looked at from all sides."""

from __future__ import annotations

import json
import re
import runpy
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL

from headgate import sql_words
from headgate.drivers.postgresql import QUESTIONS
from headgate.statements import StatementClass, StatementProof

from .proving import postgresql, sqlite
from .proving.compiled import selects
from .proving.grammar import HOLE, Grammar, disguised, endangered, mutated, statements, traps
from .proving.worlds import PostgresWorld, SqliteWorld

READ, OTHER = StatementClass.READ, StatementClass.OTHER
READ_ONLY = "25006"
Statements = st.SearchStrategy[tuple[str, Any]]


def often(times: int) -> settings:
    """As many examples as the profile asks for, times ``times``: one costs milliseconds."""
    return settings(
        max_examples=times * settings.default.max_examples, deadline=None, suppress_health_check=list(HealthCheck)
    )


@pytest.fixture
def unguarded(postgres_url: URL) -> Iterator[PostgresWorld]:
    with PostgresWorld(postgres_url, guard=False) as world:
        yield world


@pytest.fixture
def guarded(postgres_url: URL) -> Iterator[PostgresWorld]:
    with PostgresWorld(postgres_url, guard=True) as world:
        yield world


@pytest.fixture
def proof() -> StatementProof:
    proof = StatementProof("postgresql")
    proof.learn_types(["mood"])
    return proof


# --- random statements ----------------------------------------------------------------------------


def reads(reading: Grammar, dangers: Grammar, fragments: list[str]) -> Statements:
    """Statements that read, and what is left of them, and of others, after a few cuts and grafts."""
    plain = statements(reading)
    strange = mutated(plain | endangered(reading, dangers), fragments)
    return (plain | disguised(plain) | strange).map(lambda sql: (sql, None))


def joined(one: Mapping[str, list[str]], other: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {kind: [*one.get(kind, []), *other.get(kind, [])] for kind in {**one, **other}}


def run_reads(
    world: PostgresWorld | SqliteWorld, proof: StatementProof, statements: Statements, times: int
) -> Counter[str]:
    """Run every statement that is proved a read; none may change anything. Returns how many ended in which way."""
    tally: Counter[str] = Counter()

    @often(times)
    @given(statements)
    def run(statement: tuple[str, Any]) -> None:
        sql, parameters = statement
        if proof.classify(sql) is not READ:
            tally["refused"] += 1
            return
        code, changes = world.run(sql, parameters)
        tally[code] += 1
        assert changes == {}, f"this was proved a read: {sql}"

    run()
    return tally


def ran(tally: Counter[str]) -> float:
    """Share of the proved reads that ran to their end."""
    return tally["00000"] / (tally.total() - tally["refused"])


def run_traps(world: PostgresWorld | SqliteWorld, proof: StatementProof, reading: Grammar, dangers: Grammar) -> None:
    """Each danger in as many statements as the profile asks for. Refused ones cost little, and all should be."""

    @often(3)
    @given(st.integers(0, 2**64))
    def run(seed: int) -> None:
        for sql in traps(Random(seed), reading, dangers):
            if proof.classify(sql) is READ:
                assert world.run(sql)[1] == {}, f"this was proved a read: {sql}"

    run()


def test_no_read_changes_anything_without_the_guard(unguarded: PostgresWorld, proof: StatementProof) -> None:
    every = reads(postgresql.READING, postgresql.DANGERS, postgresql.FRAGMENTS)
    tally = run_reads(unguarded, proof, every, times=15)
    assert ran(tally) > 0.6, tally


def test_no_read_changes_anything_with_the_guard(guarded: PostgresWorld, proof: StatementProof) -> None:
    """Not even where only the server sees what is read."""
    hidden = joined(postgresql.READING, postgresql.EXCEPTIONS)
    every = reads(hidden, postgresql.DANGERS, postgresql.FRAGMENTS)
    tally = run_reads(guarded, proof, every, times=10)
    assert tally[READ_ONLY] > 0.1 * tally["00000"], f"the guard must have had something to do: {tally}"


def test_no_compiled_select_changes_anything(unguarded: PostgresWorld, proof: StatementProof) -> None:
    tally = run_reads(unguarded, proof, selects(), times=4)
    assert tally["refused"] == 0
    assert ran(tally) > 0.8, tally


def test_no_read_of_sqlite_changes_anything() -> None:
    with SqliteWorld() as world:
        every = reads(sqlite.READING, sqlite.DANGERS, sqlite.FRAGMENTS)
        tally = run_reads(world, StatementProof("sqlite"), every, times=15)
    assert ran(tally) > 0.6, tally


def test_no_trap_is_taken_for_a_read(unguarded: PostgresWorld, proof: StatementProof) -> None:
    run_traps(unguarded, proof, postgresql.READING, postgresql.DANGERS)


def test_no_trap_is_taken_for_a_read_of_sqlite() -> None:
    with SqliteWorld() as world:
        run_traps(world, StatementProof("sqlite"), sqlite.READING, sqlite.DANGERS)


# --- the traps are real ---------------------------------------------------------------------------

FRAMES = {"int": "SELECT {int} FROM a AS x", "from": "SELECT x.id FROM {from}", "statement": "{statement}"}
FILLING = {"int": "x.n", "from": "a AS x", "items": "x.id", "bool": "x.n = 1", "count": "3", "text": "x.s"}


def alone(dangers: Mapping[str, list[str]]) -> list[str]:
    """Each danger in the smallest statement that has a place for it."""
    framed = [FRAMES[kind].replace(f"{{{kind}}}", danger) for kind in dangers for danger in dangers[kind]]
    return [HOLE.sub(lambda hole: FILLING[hole[1]], sql) for sql in framed]


def test_every_danger_changes_something_and_is_no_read(unguarded: PostgresWorld, proof: StatementProof) -> None:
    assert [sql for sql in alone(postgresql.DANGERS) if proof.classify(sql) is READ] == []

    @often(1)
    @given(st.sampled_from(alone(postgresql.DANGERS)))
    def run(sql: str) -> None:
        assert unguarded.run(sql)[1] != {}

    run()


def test_every_danger_of_sqlite_changes_something_and_is_no_read() -> None:
    proof = StatementProof("sqlite")
    with SqliteWorld() as world:
        assert [sql for sql in alone(sqlite.DANGERS) if proof.classify(sql) is READ] == []
        assert [sql for sql in alone(sqlite.DANGERS) if world.run(sql)[1] == {}] == []


@pytest.mark.parametrize(
    ("sql", "role"),
    [
        pytest.param("SELECT n FROM loud_view", "", id="a view"),
        pytest.param("SELECT id <+> n FROM a", "", id="an operator"),
        pytest.param("SELECT CAST(s AS citext) FROM a", "", id="a domain named like a type"),
        pytest.param("SELECT x.f FROM a AS x", "", id="attribute notation"),
        pytest.param("SELECT (x).f FROM a AS x", "", id="attribute notation in parentheses"),
        pytest.param("SELECT similarity(id, n) FROM a", "", id="a function named like a listed one"),
        pytest.param("SELECT CAST(x AS integer) FROM a AS x", "", id="a cast"),
        pytest.param("SELECT id FROM fenced", "reader", id="a policy"),
    ],
)
def test_what_no_text_shows_is_stopped_by_the_guard(sql: str, role: str, postgres_url: URL) -> None:
    assert StatementProof("postgresql").classify(sql) is READ
    with PostgresWorld(postgres_url, guard=False, role=role) as world:
        code, changes = world.run(sql)
        assert code == "00000"
        assert "rows" in changes, "without the guard it writes"
    with PostgresWorld(postgres_url, guard=True, role=role) as world:
        assert world.run(sql) == (READ_ONLY, {})


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('app.x', 'y', false)",
        "SELECT pg_notify('news', 'x')",
        "SELECT pg_advisory_lock(1)",
        "SELECT txid_current()",
        "SELECT current_schema",
        "SELECT current_schema()",
        "SELECT current_schemas(true)",
        "SET app.x = 'y'",
        "LISTEN other",
        "PREPARE p AS SELECT 1",
        "DECLARE k CURSOR WITH HOLD FOR SELECT 1",
    ],
)
def test_what_the_guard_lets_through_is_no_read(sql: str, guarded: PostgresWorld, proof: StatementProof) -> None:
    code, changes = guarded.run(sql)
    assert code == "00000"
    assert changes != {}
    assert proof.classify(sql) is OTHER


# --- the table is SQL -----------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden"
TABLE = list(runpy.run_path(str(GOLDEN / "statements" / "table.py"))["read_table"]())
NO_SERVER_TAKES_IT = re.compile(r"(?<!AS )(?<!MATERIALIZED )\((DELETE|INSERT|UPDATE)\b")
SYNTAX_ERROR = b"42601"


def known(family: str) -> list[str]:
    texts = [row.sql for row in TABLE if row.expected in ("READ", "WRITE") and row.family == family]
    return [sql for sql in texts if not NO_SERVER_TAKES_IT.search(sql)]


def for_the_server(sql: str) -> str:
    """The text as psycopg would send it; asyncpg's texts have no percent signs."""
    if re.search(r"%[s(%]", sql) is None:
        return sql
    return re.sub(r"%(?:\(\w+\))?s", "$1", sql).replace("%%", "%")


def test_postgresql_can_parse_what_the_table_calls_known(postgres_url: URL) -> None:
    with psycopg.connect(postgres_url.render_as_string(hide_password=False)) as connection:
        refused = []
        for sql in known("postgresql"):
            found = connection.pgconn.prepare(b"", for_the_server(sql).encode())
            if found.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == SYNTAX_ERROR:
                refused.append((sql, found.error_message))
    assert refused == []


def test_sqlite_can_parse_what_the_table_calls_known() -> None:
    refused = []
    with closing(sqlite3.connect(":memory:")) as connection:
        for sql in known("sqlite"):
            try:
                connection.execute(f"EXPLAIN {sql}", [None] * 9)
            except sqlite3.Error as error:
                refused += [(sql, str(error))] * ("syntax error" in str(error))
    assert refused == []


# --- what the server says of the lists ------------------------------------------------------------

NOT_THE_SAME_TWICE = {
    *("array_sample", "array_shuffle", "clock_timestamp", "gen_random_uuid", "random", "random_normal", "timeofday"),
    *("uuidv4", "uuidv7"),
}
LOOKS_AT_FILES_OR_CLOCKS = {
    *("pg_database_size", "pg_indexes_size", "pg_is_in_recovery", "pg_relation_size", "pg_sleep", "pg_sleep_for"),
    *("pg_sleep_until", "pg_table_size", "pg_tablespace_size", "pg_total_relation_size"),
}
IN_NO_PARALLEL_WORKER = {"age", "pg_get_viewdef", "random", "random_normal"}


def test_the_server_suspects_no_listed_function(postgres_url: URL) -> None:
    """What writes or touches the session is volatile or must not run in a parallel worker, or it is a bug of theirs."""
    query = "SELECT proname FROM pg_proc WHERE proname = ANY (%s) AND (provolatile = 'v' OR proparallel <> 's')"
    with psycopg.connect(postgres_url.render_as_string(hide_password=False)) as connection:
        connection.execute("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public; CREATE EXTENSION vector")
        suspects = {name for (name,) in connection.execute(query, [list(sql_words.POSTGRESQL_FUNCTIONS)])}
        connection.rollback()
    assert suspects <= NOT_THE_SAME_TWICE | LOOKS_AT_FILES_OR_CLOCKS | IN_NO_PARALLEL_WORKER


@pytest.mark.parametrize(
    "query",
    [
        "SELECT oprname FROM pg_operator JOIN pg_proc AS p ON p.oid = oprcode",
        "SELECT typname FROM pg_type JOIN pg_proc AS p ON p.oid IN (typinput, typoutput, typmodin)",
        "SELECT casttarget::regtype FROM pg_cast JOIN pg_proc AS p ON p.oid = castfunc",
    ],
)
def test_the_server_suspects_no_operator_type_or_cast_of_its_own(query: str, postgres_url: URL) -> None:
    suspect = " WHERE p.oid < 16384 AND (p.provolatile = 'v' OR p.proparallel = 'u')"
    with psycopg.connect(postgres_url.render_as_string(hide_password=False)) as connection:
        assert connection.execute(query + suspect).fetchall() == []  # type: ignore[call-overload]


# --- native enums ---------------------------------------------------------------------------------

CAST = "CREATE FUNCTION m(int) RETURNS {0} LANGUAGE sql AS 'SELECT NULL::{0}'; CREATE CAST (int AS {0}) WITH FUNCTION m"


@pytest.mark.parametrize(
    ("ddl", "learned"),
    [
        ("CREATE TYPE mood AS ENUM ('sad')", {"mood"}),
        ("CREATE TYPE \"Mood\" AS ENUM ('sad'); CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('sad')", {"mood"}),
        ("CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN \"MOOD\" AS text", set()),
        ("CREATE TYPE mood AS ENUM ('sad'); CREATE SCHEMA s; CREATE TABLE s.mood (i int)", set()),
        ("CREATE DOMAIN mood AS text", set()),
        ("CREATE TYPE mood AS ENUM ('sad');" + CAST.format("mood"), set()),
        ("CREATE TYPE mood AS ENUM ('sad');" + CAST.format("mood[]"), set()),
        ("CREATE TYPE \"größe\" AS ENUM ('s'); CREATE TYPE \"a b\" AS ENUM ('s')", {"größe", "a b"}),
        ("SELECT 1", set()),
    ],
)
def test_only_names_of_nothing_but_plain_enums_are_harmless(ddl: str, learned: set[str], postgres_url: URL) -> None:
    with psycopg.connect(postgres_url.render_as_string(hide_password=False)) as connection:
        connection.execute("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public")
        connection.execute(ddl)  # type: ignore[call-overload]
        *_, names = connection.execute(QUESTIONS).fetchone() or ()  # type: ignore[call-overload]
        connection.rollback()
    assert set(json.loads(names or "[]")) == learned
