# ruff: noqa: E501 -- one statement is one line
from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headgate.statements import Family, StatementClass, classify_text

READ = StatementClass.READ
FAMILIES: st.SearchStrategy[Family] = st.sampled_from(["postgresql", "sqlite"])

# Reads of both families, spaced so that every token border is a space.
READS = [
    "SELECT t.id , count ( * ) AS n FROM t JOIN u ON t.id = u.id WHERE t.a = 'x' GROUP BY t.id ORDER BY n DESC LIMIT 3",
    "WITH RECURSIVE c ( x ) AS ( VALUES ( 1 ) UNION ALL SELECT x + 1 FROM c WHERE x < 9 ) SELECT x FROM c",
    "SELECT \"a b\" , CAST ( c AS VARCHAR ( 10 ) ) , CASE WHEN a THEN 'y' ELSE lower ( b ) END FROM t",
    "SELECT sum ( a ) FILTER ( WHERE b > 1 ) OVER ( PARTITION BY c ORDER BY d ROWS BETWEEN 1 PRECEDING AND CURRENT ROW ) FROM t",
    "SELECT a FROM t LEFT JOIN ( SELECT b FROM u WHERE b IN ( 1 , 2 ) ) AS v ON t.a = v.b WHERE EXISTS ( SELECT 1 )",
    "VALUES ( 1 , 'a' ) , ( 2 , 'b' )",
    "SELECT a FROM t WHERE a NOT LIKE 'x' ESCAPE '/' AND b IS NOT NULL UNION SELECT ( SELECT max ( c ) FROM u ) OFFSET 2",
]
POSTGRESQL_READS = [
    *READS,
    "SELECT DISTINCT ON ( a ) a , b :: numeric ( 10 , 2 ) FROM t , LATERAL ( SELECT 1 ) AS x ( y ) WHERE c = ANY ( ARRAY [ 1 , 2 ] )",
    "SELECT substring ( a FROM 1 FOR 2 ) , extract ( epoch FROM b ) , c AT TIME ZONE 'UTC' , interval '1 day' FROM t FETCH FIRST 5 ROWS ONLY",
    "SELECT * FROM jsonb_to_recordset ( a ) WITH ORDINALITY AS r ( b , c ) TABLESAMPLE bernoulli ( 5 ) WINDOW w AS ( ORDER BY a )",
]
DANGERS = [
    "INTO x",
    "FOR UPDATE",
    "FOR NO KEY UPDATE",
    "; DELETE FROM t",
    "; SELECT 1",
    "INSERT INTO t VALUES ( 1 )",
    "( DELETE FROM t RETURNING a )",
    "UPDATE t SET a = 1",
    "f ( 1 )",
    "nextval ( 's' )",
    "s . lower ( a )",
    '"lower" ( 1 )',
    "join ( 1 ) , over ( 1 ) , by ( 1 )",
    "CAST ( a AS my_type )",
    "my_type 'x'",
    "E'x'",
    "$$",
    "\\",
    "ü",
    "\0",
    "/* /* */ */",
    "/*",
    "'",
    '"',
    "`a`",
    "DO",
    "SET a = 1",
    "CALL p",
]
TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|\S+")


def reads_of(family: Family) -> list[str]:
    return POSTGRESQL_READS if family == "postgresql" else READS


@pytest.mark.parametrize("family", ["postgresql", "sqlite"])
def test_the_texts_to_start_from_are_reads(family: Family) -> None:
    assert [sql for sql in reads_of(family) if classify_text(sql, family) is not READ] == []


@pytest.mark.parametrize("family", ["postgresql", "sqlite"])
@pytest.mark.parametrize("danger", DANGERS)
def test_no_danger_hides_at_any_border_of_tokens(family: Family, danger: str) -> None:
    found = []
    for sql in reads_of(family):
        tokens = TOKEN.findall(sql)
        for border in range(len(tokens) + 1):
            changed = " ".join([*tokens[:border], danger, *tokens[border:]])
            if classify_text(changed, family) is READ:
                found.append(changed)
    assert found == []


@given(sql=st.text(), family=FAMILIES)
@example(sql="SELECT '\ud800'", family="postgresql")
def test_no_text_raises(sql: str, family: Family) -> None:
    assert classify_text(sql, family) in StatementClass


FRAGMENTS = st.sampled_from(
    [
        "SELECT",
        "WITH",
        "RECURSIVE",
        "VALUES",
        "FROM",
        "WHERE",
        "AS",
        "(",
        ")",
        "[",
        "]",
        ",",
        ".",
        ";",
        ":",
        "::",
        "*",
        "=",
        "+",
        "-",
        "/",
        "%",
        "%s",
        "%(a)s",
        "$1",
        "?",
        "'a'",
        '"b"',
        "a",
        "t",
        "lower",
        "f",
        "cast",
        "INSERT",
        "INTO",
        "UPDATE",
        "SET",
        "DELETE",
        "MERGE",
        "USING",
        "ON",
        "CONFLICT",
        "DO",
        "NOTHING",
        "RETURNING",
        "FOR",
        "SHARE",
        "OF",
        "SAVEPOINT",
        "ROLLBACK",
        "TO",
        "RELEASE",
        "GROUP",
        "BY",
        "ORDER",
        "FETCH",
        "FIRST",
        "ROWS",
        "NOT",
        "IN",
        "IS",
        "NULL",
        "LIKE",
        "ESCAPE",
        "OVER",
        "FILTER",
        "JOIN",
        "LEFT",
        "DISTINCT",
        "UNION",
        "ALL",
        "integer",
        "interval",
        "timestamp",
        "with",
        "time",
        "zone",
        "varchar",
        "array",
        "/*",
        "*/",
        "--",
        "1",
        "1.5",
        "1a",
        "'x",
    ]
)


@given(words=st.lists(FRAGMENTS, max_size=40), separator=st.sampled_from([" ", "", "\n"]), family=FAMILIES)
def test_no_heap_of_tokens_raises(words: list[str], separator: str, family: Family) -> None:
    assert classify_text(separator.join(words), family) in StatementClass


@given(data=st.data(), family=FAMILIES)
def test_a_read_has_no_unknown_call_and_no_word_that_writes(data: st.DataObject, family: Family) -> None:
    tokens = TOKEN.findall(data.draw(st.sampled_from(reads_of(family))))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(tokens)))
        tokens[start : start + data.draw(st.integers(0, 2))] = data.draw(st.lists(FRAGMENTS, max_size=3))
    sql = " ".join(tokens)
    if classify_text(sql, family) is READ:
        outside = re.sub(r"--.*|/\*.*?\*/|'[^']*'|\"[^\"]*\"", " ", sql)
        assert not re.search(r"\bf \(|(?<!\. )\b(INTO|UPDATE|DELETE|INSERT|MERGE)\b", outside)


def _upper(token: str) -> str:
    return token if token[0] in "'\"" else token.upper()


def _lower(token: str) -> str:
    return token if token[0] in "'\"" else token.lower()


SPACES = st.text(" \t\n\r\f", min_size=1, max_size=3)
COMMENTS = st.sampled_from(["/**/", " /* a ' \" ; ( */ ", "/***/", " -- INTO ' \n", "\n--\r\n"])


@given(data=st.data(), family=FAMILIES, case=st.sampled_from([_upper, _lower]))
def test_case_space_and_comments_change_nothing(
    data: st.DataObject, family: Family, case: Callable[[str], str]
) -> None:
    sql = data.draw(st.sampled_from(reads_of(family)))
    tokens = [case(token) for token in TOKEN.findall(sql)]
    gaps = data.draw(st.lists(SPACES | COMMENTS, min_size=len(tokens), max_size=len(tokens)))
    changed = "".join(token + gap for token, gap in zip(tokens, gaps, strict=True))
    assert classify_text(changed, family) is READ


# What a driver that merges on the client could take for a placeholder is refused, and is not meant here;
# nor is what no family takes within quotes.
CONTENT = st.text(st.characters(exclude_characters="\0\\%¥₩", exclude_categories=["Cs"]))


@given(content=CONTENT, family=FAMILIES, data=st.data())
@example(content="'; DELETE FROM t; --", family="postgresql", data=None)
def test_what_is_in_quotes_never_matters(content: str, family: Family, data: st.DataObject | None) -> None:
    assume("pragma_" not in content.lower() and content)
    sql = data.draw(st.sampled_from([sql for sql in reads_of(family) if "'" in sql])) if data else READS[0]
    literal = "'" + content.replace("'", "''") + "'"
    assert classify_text(re.sub(r"'[^']*'", lambda _: literal, sql), family) is READ


@given(content=CONTENT, family=FAMILIES)
def test_what_is_in_a_quoted_name_never_matters(content: str, family: Family) -> None:
    """But for a view that shows what the guard has set."""
    assume(content and "pragma_" not in content.lower() and "pg_settings" not in content.lower())
    name = '"' + content.replace('"', '""') + '"'
    assert classify_text(f"SELECT {name}, t.{name} AS {name} FROM {name}", family) is READ
    assert classify_text(f"SELECT {name}(1) FROM t", family) is not READ
