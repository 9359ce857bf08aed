"""What SQLite can be asked, and what must not slip through when it is."""

from __future__ import annotations

READING = {
    "statement": [
        "SELECT {items} FROM {from}",
        "SELECT {items} FROM {from} WHERE {bool} ORDER BY {int} + 0, {text} || '' DESC LIMIT 3 OFFSET 1",
        "SELECT DISTINCT {int}, {text} FROM {from} WHERE {bool}",
        "SELECT count(*), max({int}), group_concat({text}, ',') FROM {from} WHERE {bool}",
        "SELECT x.n, total({int}) FROM {from} GROUP BY x.n HAVING count(*) > 0",
        "SELECT {int}, row_number() OVER w FROM {from} WINDOW w AS (PARTITION BY {int} ORDER BY {text})",
        "SELECT sum(1) FILTER (WHERE {bool}) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM {from}",
        "SELECT {int} FROM {from} UNION ALL SELECT {int} FROM {from} ORDER BY 1",
        "WITH d(p) AS (SELECT {int} FROM {from}) SELECT p, {items} FROM d, {from}",
        "WITH RECURSIVE r(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM r WHERE i < 4) SELECT i, {int} FROM r, {from}",
        "VALUES (1, 'a'), (2, (SELECT {text} FROM {from} LIMIT 1))",
        "SELECT {items} FROM {from} WHERE x.n IN (SELECT {int} FROM {from}) OR EXISTS (SELECT {int} FROM {from})",
        "SELECT name, {int} FROM sqlite_master, {from} WHERE type = 'table'",
    ],
    "items": ["x.*", "*", 'x.id, x.s AS "into"', "{int} AS one, {text} AS two", "{bool}, {int}"],
    "from": [
        "a AS x",
        "main.a AS x",
        '"a" x',
        "quiet AS x",
        "a AS x NOT INDEXED",
        "(SELECT * FROM a WHERE n) AS x",
        "a AS x JOIN a AS y ON x.id = y.id AND {bool}",
        "a AS x LEFT OUTER JOIN c AS k USING (id)",
        "a AS x, json_each(x.j) AS e",
        "a AS x CROSS JOIN (VALUES (1, 'a')) AS v",
    ],
    "int": [
        "x.n",
        "x.id",
        "1",
        "{int} + {int}",
        "{int} % 7",
        "abs({int})",
        "length({text})",
        "ifnull({int}, {int})",
        "CAST({text} AS INTEGER)",
        "CASE WHEN {bool} THEN {int} ELSE {int} END",
        "iif({bool}, {int}, {int})",
        "(SELECT count(*) FROM {from})",
        "json_extract(x.j, '$.i')",
    ],
    "text": [
        "x.s",
        "'it''s'",
        "'; DELETE FROM a; --'",
        "lower({text})",
        "({text} || {text})",
        "substr({text}, 1, 2)",
        "replace({text}, 'a', 'b')",
        "printf('%d', {int})",
        "strftime('%Y', 'now')",
        "typeof({int})",
        "quote({text})",
        "{text} COLLATE NOCASE",
        "(x.j ->> '$.k')",
    ],
    "bool": [
        "x.n",
        "{int} > {int}",
        "{int} BETWEEN {int} AND {int}",
        "{int} IN (1, 2)",
        "{text} LIKE 'a%' ESCAPE '/'",
        "{text} GLOB '*'",
        "{int} IS NOT {int}",
        "{text} NOTNULL",
        "({bool} AND NOT {bool})",
        "EXISTS (SELECT 1 FROM {from})",
    ],
}
"""Statements that read, whatever fills their holes."""

DANGERS = {
    "int": [
        "f({int})",
        "F ({int})",
        "f/**/({int})",
        '"f"({int})',
        "[f]({int})",
        "`f`({int})",
        "abs(f({int}))",
        "over({int})",
        "(SELECT f(1))",
        "CASE WHEN 1 THEN f(1) END",
    ],
    "from": [
        "a AS x JOIN c ON f(1)",
        "(SELECT f(id) AS id FROM a) AS x",
        "a AS x, pragma_user_version",
        "a AS x, pragma_journal_mode",
        "a AS x, 'pragma_optimize'",
    ],
    "statement": [
        "WITH d AS (SELECT 1) DELETE FROM c",
        "WITH d AS (SELECT 1) INSERT INTO c VALUES (5)",
        "WITH d AS (SELECT 1) REPLACE INTO c VALUES (5)",
        "WITH d AS (SELECT 1) UPDATE c SET id = id + 9",
        "DELETE FROM c RETURNING id",
        "INSERT INTO c SELECT 9",
        "REPLACE INTO c VALUES (9)",
        "VALUES (f(1))",
        "SELECT 1 LIMIT f(1)",
        "SELECT count(*) FILTER (WHERE f(id)) FROM a",
        "SELECT count(*) OVER (ORDER BY f(id)) FROM a",
        "SELECT 1 FROM a GROUP BY f(id)",
        "PRAGMA user_version = 5",
        "ATTACH ':memory:' AS y",
        "CREATE TEMP TABLE made (i)",
        "CREATE TABLE made AS SELECT 1",
        "DROP TABLE c",
        "BEGIN",
        "VACUUM",
    ],
}
"""What changes something when it runs, in a hole of a statement that reads or as a statement of its own."""

FRAGMENTS = [
    *("SELECT", "FROM", "WHERE", "WITH", "AS", "(", ")", ",", ".", ";", "*", "=", "+", "-", "/", "||", "[", "]", "`f`"),
    *(
        "f ( 1 )",
        "f",
        "DELETE FROM c",
        "INSERT INTO c",
        "REPLACE INTO c",
        "REPLACE",
        "INTO",
        "SET",
        "UPDATE c SET id = 1",
    ),
    *(
        "'a'",
        '"f"',
        "1",
        "x",
        "a",
        "c",
        "id",
        "pragma_user_version",
        "over",
        "replace",
        "glob",
        "like",
        "match",
        "regexp",
    ),
    *("'", '"', "/*", "*/", "--", "\n", "ü", "?", ":a", "NULL", "RETURNING", "ON", "CONFLICT", "DO", "VALUES", "JOIN"),
]
"""What mutations put between other things."""

WORLD = """
CREATE TABLE a (id INTEGER PRIMARY KEY, n INT, s TEXT, j TEXT);
INSERT INTO a VALUES (1, 1, 'abc', '{"k": "v", "i": 1}'), (2, 0, 'xyz', '{}'), (3, NULL, NULL, NULL);
CREATE TABLE c (id INTEGER PRIMARY KEY);
INSERT INTO c VALUES (1), (2);
CREATE TABLE log (who);
CREATE VIEW quiet AS SELECT * FROM a;
CREATE TRIGGER noted AFTER DELETE ON c BEGIN INSERT INTO log VALUES ('c'); END;
"""
"""Run on an empty database; the functions ``f`` and ``over`` write."""
