"""What PostgreSQL can be asked, and what must not slip through when it is."""

from __future__ import annotations

READING = {
    "statement": [
        "SELECT {items} FROM {from}",
        "SELECT {items} FROM {from} WHERE {bool}",
        "SELECT {items} FROM {from} WHERE {bool} ORDER BY {int} + 0, {text} || '' DESC NULLS LAST LIMIT {count}",
        "SELECT DISTINCT {int}, {text} FROM {from} WHERE {bool}",
        "SELECT DISTINCT ON (x.n) {items} FROM {from} ORDER BY x.n, {text} USING <",
        "SELECT {aggregate}, {aggregate} FROM {from} WHERE {bool}",
        "SELECT x.n, {aggregate} FROM {from} GROUP BY x.n HAVING {aggregate} IS NOT NULL ORDER BY 1",
        "SELECT x.n, x.s, {aggregate} FROM {from} GROUP BY GROUPING SETS ((x.n), (x.s), ())",
        "SELECT x.n, grouping(x.n), {aggregate} FROM {from} GROUP BY ROLLUP (x.n)",
        "SELECT {int} AS v, rank() OVER w FROM {from} WINDOW w AS (PARTITION BY {int} ORDER BY {text})",
        "SELECT {int}, {text} FROM {from} UNION SELECT {int}, {text} FROM {from} ORDER BY 1 FETCH FIRST 3 ROWS ONLY",
        "(SELECT {int} FROM {from}) EXCEPT (SELECT {int} FROM {from} WHERE {bool})",
        "WITH c AS (SELECT {items} FROM {from}) SELECT {items}, (SELECT count(*) FROM c) FROM {from}",
        "WITH c(p) AS MATERIALIZED (SELECT {int} FROM {from}), d AS NOT MATERIALIZED (SELECT p FROM c) SELECT p FROM d",
        "WITH RECURSIVE r(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM r WHERE i < {count}) SELECT i FROM r, {from}",
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION SELECT i + 1 FROM r WHERE i < 4) CYCLE i SET z USING p SELECT i FROM r",
        "VALUES (1, 'a'), (2, (SELECT {text} FROM {from} LIMIT 1))",
        "SELECT EXISTS (SELECT {int} FROM {from} WHERE {bool}), ARRAY(SELECT {int} FROM {from})",
        "SELECT {items} FROM {from} WHERE x.n IN (SELECT {int} FROM {from}) OR (x.n, x.s) IN ((1, 'a'), (2, 'b'))",
        "SELECT last_value, is_called FROM seq, {from} WHERE {bool}",
        "SELECT {items}, name, setting FROM pg_settings, {from} WHERE name = 'search_path'",
        "SELECT c.relname, {int} FROM pg_catalog.pg_class AS c, {from} WHERE pg_table_is_visible(c.oid) LIMIT 3",
    ],
    "items": [
        "x.*",
        "*",
        'x.id, x.s AS "for update"',
        "{int} AS one, {text} AS two",
        "{bool}, {json}, {time}",
        "{window}, {int}",
        "{int}, {text}, {ints}, {mood}",
    ],
    "window": [
        "row_number() OVER ()",
        "sum({int}) OVER (PARTITION BY {int} ORDER BY {text} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
        "lag({int}, 1) OVER (ORDER BY {int})",
        "count(*) FILTER (WHERE {bool}) OVER (ORDER BY {text})",
    ],
    "aggregate": [
        "count(*)",
        "sum(x.id)",
        "max({int})",
        "string_agg({text}, ',' ORDER BY {int})",
        "array_agg(DISTINCT {int})",
        "count({text}) FILTER (WHERE {bool})",
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY {int})",
        "jsonb_agg({json})",
        "bool_or({bool})",
    ],
    "from": [
        "a AS x",
        "a x",
        "public.a AS x",
        "ONLY a AS x",
        '"a" AS "x"',
        "quiet AS x",
        "part AS x",
        "a AS x(id, n, s, b, t, j, xs, m)",
        "a AS x TABLESAMPLE bernoulli (90) REPEATABLE (3)",
        "(SELECT * FROM a WHERE b) AS x",
        "a AS x, generate_series(1, {count}) AS g(i)",
        "a AS x CROSS JOIN (VALUES (1, 'a')) AS v(p, q)",
        "a AS x JOIN a AS y ON x.id = y.id AND {bool}",
        "a AS x LEFT OUTER JOIN public.c AS k USING (id)",
        "a AS x NATURAL LEFT JOIN (SELECT 1 AS id) AS k",
        "a AS x LEFT JOIN LATERAL (SELECT {int} AS l LIMIT 1) AS l ON true",
        "a AS x, LATERAL unnest({ints}) WITH ORDINALITY AS u(v, o)",
        "a AS x, jsonb_to_recordset('[{}]') AS rs(p integer, q text)",
        "a AS x, ROWS FROM (generate_series(1, 2), unnest(ARRAY[1, 2])) AS f(p, q)",
    ],
    "int": [
        "x.n",
        "x.id",
        "1",
        "(-3)",
        "{int} + {int}",
        "{int} * 2 - {int}",
        "({int} % 7)",
        "abs({int})",
        "length({text})",
        "coalesce({int}, {int})",
        "greatest({int}, {int}, 0)",
        "nullif({int}, {int})",
        "CAST({int} AS bigint)",
        "CAST({int} AS numeric(30, 2))",
        "({int})::integer",
        "CASE WHEN {bool} THEN {int} ELSE {int} END",
        "CASE {int} WHEN 1 THEN {int} END",
        "extract(year FROM {time})",
        "position('a' IN {text})",
        "cardinality({ints})",
        "({ints})[1]",
        "(SELECT {aggregate_int} FROM {from})",
        "(SELECT {int} FROM {from} ORDER BY {int} LIMIT 1)",
        "({json} ->> 'i')::int",
        "pg_column_size({text})",
    ],
    "aggregate_int": ["count(*)", "max({int})", "count({text})"],
    "text": [
        "x.s",
        "'it''s'",
        "'; DELETE FROM a; --'",
        "'nextval(''seq'') FOR UPDATE'",
        "'ünïcode ☃'",
        "lower({text})",
        "({text} || {text})",
        "CAST({int} AS text)",
        "({int})::varchar(10)",
        "substring({text} FROM 1 FOR 2)",
        "trim(BOTH 'x' FROM {text})",
        "overlay({text} PLACING 'y' FROM 1 FOR 1)",
        "replace({text}, 'a', 'b')",
        "left({text}, 3)",
        "format('%I', {text})",
        "concat_ws('-', {text}, {int})",
        "to_char({time}, 'YYYY')",
        "md5({text})",
        "({json} ->> 'k')",
        '({text} COLLATE "C")',
        "coalesce({text}, current_user)",
        "({mood})::text",
        "current_setting('search_path')",
        "(SELECT string_agg({text}, ',') FROM {from})",
    ],
    "bool": [
        "x.b",
        "true",
        "{int} > {int}",
        "{int} BETWEEN {int} AND {int}",
        "{int} IN (1, 2, {int})",
        "{int} NOT IN (1, {int})",
        "{text} LIKE 'a%'",
        "{text} NOT ILIKE '%x' ESCAPE '/'",
        "{text} SIMILAR TO '(a|b)%'",
        "{text} ~ '^a'",
        "{int} IS DISTINCT FROM {int}",
        "{text} IS NOT NULL",
        "({bool} AND {bool})",
        "({bool} OR NOT {bool})",
        "EXISTS (SELECT 1 FROM {from} WHERE {bool})",
        "{int} = ANY ({ints})",
        "{int} = ANY (SELECT {int} FROM {from})",
        "{ints} @> ARRAY[{int}]",
        "{json} ? 'k'",
        "{json} @> '{}'",
        "to_tsvector('english', {text}) @@ plainto_tsquery('cat')",
        "({time}, {time}) OVERLAPS (now(), now())",
        "x.m IS NOT NULL",
    ],
    "time": [
        "x.t",
        "now()",
        "current_timestamp",
        "timestamp '2020-01-01'",
        "({time} + interval '1 day')",
        "date_trunc('day', {time})",
        "({time} AT TIME ZONE 'UTC')",
    ],
    "json": [
        "x.j",
        "'{}'::jsonb",
        "jsonb_build_object('k', {text})",
        "jsonb_set(x.j, '{a}', '1')",
        "to_jsonb({int})",
        "({json} -> 'k')",
        "({json} || '{}')",
        "jsonb_path_query_first({json}, '$.k')",
    ],
    "ints": [
        "x.xs",
        "ARRAY[1, 2]",
        "ARRAY[1, 2]::integer[]",
        "x.xs[1:2]",
        "array_append(x.xs, 1)",
        "CAST(x.xs AS int[])",
    ],
    "mood": ["x.m", "'sad'::mood", "CAST('happy' AS public.mood)", "('sad'::\"mood\")", "('{\"sad\"}'::mood[])[1]"],
    "count": ["1", "3", "(SELECT 2)"],
}
"""Statements that read, whatever fills their holes."""

DANGERS = {
    "int": [
        "f()",
        "f({int})",
        "F ({int})",
        "f/**/({int})",
        "public.f({int})",
        "public . f ( {int} )",
        '"f"({int})',
        '"public"."f"()',
        "abs(f({int}))",
        "(f({int})).f",
        "(SELECT f())",
        "CASE WHEN true THEN f() END",
        "nextval('seq')",
        "nextval('seq'::regclass)",
        "pg_catalog.nextval('public.seq')",
        "setval('seq', 100)",
        "setval('seq', {int} + 100, false)",
        "length(set_config('app.x', 'y', false))",
        "length(set_config('search_path', 'x', true))",
        "pg_catalog.length(pg_catalog.set_config('role', 'reader', false))",
        "length(pg_advisory_lock(7)::text)",
        "length(pg_advisory_xact_lock_shared(1, 2)::text)",
        "pg_try_advisory_lock(9)::int",
        "length(pg_notify('news', 'x')::text)",
        "txid_current()::int",
        "length(pg_current_xact_id()::text)",
        "lo_create(0)::int",
        "lo_from_bytea(0, '')::int",
        "length(lo_creat(-1)::text)",
        "(SELECT count(*) FROM ts_stat('SELECT to_tsvector(f()::text)'))",
        "length(current_schema)",
        "length(current_schema())",
        "cardinality(current_schemas(true))",
        "({int})::loud",
        "CAST({int} AS loud)",
        "CAST({int} AS public.loud)",
        '({int})::public."loud"',
        "('{1}'::loud[])[1]",
        "loud '1'",
        "({int} OPERATOR(public.<+>) {int})",
        "({int} <+++> {int})",
        'U&"\\0066"({int})',
        "over({int})",
        "filter({int})",
        "zone({int})",
        "conflict({int})",
        "join({int})",
        "length($$x$$) + f()",
        "length(E'\\'' || f() || E'\\'')",
    ],
    "from": [
        "(SELECT * FROM a FOR UPDATE) AS x",
        "(SELECT * FROM a FOR NO KEY UPDATE OF a) AS x",
        "(SELECT * FROM a FOR KEY SHARE SKIP LOCKED) AS x",
        "(SELECT * FROM a FOR SHARE NOWAIT) AS x",
        "a AS x, f({count})",
        "a AS x, f() AS q",
        "a AS x, LATERAL f(x.id) AS q(v)",
        "a AS x, ROWS FROM (f(1), generate_series(1, 2)) AS q",
        "a AS x, nextval('seq') AS q",
        "a AS x, json_to_recordset('[{\"v\": 1}]') AS q(v loud)",
        "a AS x, json_to_recordset('[{\"v\": 1}]') AS q(v public.loud)",
        "a AS x, json_to_record('{\"v\": 1}') over (v loud)",
        "a AS x, writer({count}) AS (y int)",
        "a AS x TABLESAMPLE bernoulli (f())",
        "a AS x JOIN a AS y ON conflict(1) > 0",
    ],
    "statement": [
        "SELECT {items} INTO made FROM {from}",
        "SELECT {items} INTO TEMP made FROM {from}",
        "SELECT {items} INTO UNLOGGED TABLE public.made FROM {from}",
        "SELECT 1 AS i INTO made",
        "WITH c AS (SELECT 1 AS i) SELECT i INTO made FROM c",
        "SELECT {items} FROM {from} FOR UPDATE",
        "SELECT {items} FROM {from} FOR NO KEY UPDATE OF x",
        "SELECT {items} FROM {from} WHERE {bool} FOR SHARE",
        "SELECT {items} FROM a AS x LIMIT 1 FOR KEY SHARE OF x NOWAIT",
        "SELECT {items} FROM {from} FOR/**/UPDATE",
        "SELECT {items} FROM {from} FOR -- x\nUPDATE",
        "WITH d AS (DELETE FROM c RETURNING id) SELECT {items} FROM {from}",
        "WITH d AS (DELETE FROM c) SELECT {items} FROM {from}",
        "WITH d AS (INSERT INTO c VALUES (99)) SELECT 1",
        "WITH d AS (UPDATE c SET id = id + 10 RETURNING *) SELECT * FROM d",
        "WITH q AS (SELECT 1), d(i) AS MATERIALIZED (DELETE FROM c RETURNING id) SELECT * FROM d",
        "WITH d AS (MERGE INTO c USING a ON a.id = c.id WHEN MATCHED THEN DELETE RETURNING c.id) SELECT 1",
        "WITH d AS (SELECT 1) DELETE FROM c",
        "WITH d AS (SELECT 1) INSERT INTO c SELECT 77",
        "SELECT {items} FROM {from}; DELETE FROM c",
        "SELECT 1;DELETE FROM c;",
        "SELECT 1; BEGIN",
        "SELECT {items} FROM {from}; RESET search_path",
        "SELECT {items} FROM {from};;SELECT nextval('seq')",
        "SELECT 1 -- x\n; UPDATE c SET id = id + 1",
        "SELECT 1 /* ; */; TRUNCATE c",
        "SELECT 'a'';'; DELETE FROM c --'",
        "SELECT $$ ; $$; DELETE FROM c",
        "SELECT $x$'$x$; DELETE FROM c; --'",
        "SELECT E'\\''; DELETE FROM c; --'",
        "SELECT U&'\\0027'; DELETE FROM c",
        "/* /* */ SELECT 1 */ DELETE FROM c",
        "/* /* */ SELECT ' */ DELETE FROM c --'",
        'SELECT 1 /* /* */ AS " */ ; DELETE FROM c --"',
        "SELECT 1 /* /* */ -- */\n; DELETE FROM c --*/",
        "SELECT 1 -- \r; DELETE FROM c",
        "SET app.x = 'y'",
        "SET LOCAL app.x = 'y'",
        "SET search_path = x",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET ROLE reader",
        "RESET search_path",
        "UPDATE pg_settings SET setting = 'x' WHERE name = 'application_name'",
        "WITH u AS (UPDATE pg_settings SET setting = 'x' WHERE name = 'application_name') SELECT 1",
        "PREPARE p AS SELECT 1",
        "DECLARE k CURSOR WITH HOLD FOR SELECT 1",
        "LISTEN other",
        "UNLISTEN *",
        "NOTIFY news",
        "DO 'BEGIN PERFORM f(); END'",
        "CALL act()",
        "CREATE TEMP TABLE made (i int)",
        "EXPLAIN ANALYZE SELECT f()",
        "TABLE c; DELETE FROM c",
        "COPY c FROM PROGRAM 'echo 5'",
        "VALUES (f())",
        "VALUES (1), (nextval('seq'))",
        "SELECT 1 LIMIT f(1)",
        "SELECT count(*) FILTER (WHERE f() > 0) FROM a",
        "SELECT max(id) OVER (ORDER BY f(id)) FROM a",
        "SELECT string_agg(s, 'x' ORDER BY nextval('seq')) FROM a",
        "SELECT 1 FROM a GROUP BY f(id)",
        "SELECT 1 FROM a GROUP BY ROLLUP (f(id))",
        "SELECT DISTINCT ON (f(id)) id FROM a",
        "SELECT 1 WINDOW w AS (ORDER BY f())",
        "SELECT count(*) OVER w FROM a WINDOW w AS (PARTITION BY f(id))",
        "SELECT 1 OFFSET f()",
        "SELECT 1 FETCH FIRST (f()) ROWS ONLY",
        "SELECT ARRAY[f()], ROW(f()), (f(), 1)",
        "SELECT xs[f(1)] FROM a",
        "SELECT json_value('{}', '$.a' DEFAULT f() ON EMPTY)",
        "SELECT json_object('k' VALUE f())",
        "SELECT overlay('abc' PLACING f()::text FROM 1)",
        "SELECT extract(year FROM now() + f() * interval '1 day')",
        "SELECT current_timestamp AT TIME ZONE (SELECT 'UTC' FROM f() AS q)",
    ],
}
"""What changes something when it runs, in a hole of a statement that reads or as a statement of its own."""

EXCEPTIONS = {
    "int": [
        "(x.id <+> {int})",
        "x.f",
        "(x).f",
        "similarity({int}, 1)",
        "(x)::integer",
        "CAST(x AS integer)",
        "({int})::citext",
        "CAST({int} AS citext)",
        "('{\"1\"}'::citext[])[1]",
    ],
    "from": ["loud_view AS x", "public.loud_view AS x", "a AS x, json_to_recordset('[{\"v\": 1}]') AS q(v citext)"],
}
"""What only the server can see: the guard's part."""

FRAGMENTS = [
    *("SELECT", "FROM", "WHERE", "WITH", "AS", "(", ")", ",", ".", ";", "::", "*", "=", "+", "-", "/", "||", "[", "]"),
    *(
        "INTO made",
        "INTO",
        "made",
        "FOR UPDATE",
        "FOR",
        "UPDATE",
        "SHARE",
        "OF x",
        "DELETE FROM c",
        "INSERT INTO c",
        "SET",
    ),
    *("f ( 1 )", "f ( )", "f", "nextval ( 'seq' )", "setval ( 'seq' , 7 )", "pg_advisory_lock ( 1 )", "set_config"),
    *("( 'app.x' , 'y' , false )", "'seq'", "'", '"', "$$", "\\", "E'\\''", "/*", "*/", "--", "\n", "\0", "ü", "loud"),
    *("x", "a", "c", "id", "x.id", "1", "'a'", '"f"', "NULL", "ON", "CONFLICT", "DO", "NOTHING", "RETURNING", "USING"),
    *("GROUP BY", "ORDER BY", "OVER", "FILTER", "JOIN", "LEFT", "CASE", "END", "IN", "NOT", "ANY", "TABLE", "VALUES"),
    *("current_schema", "public", "COLLATE", "OPERATOR", "TABLESAMPLE", "ROWS", "LATERAL", "zone", "over", "conflict"),
]
"""What mutations put between other things."""

WORLD = """
SET client_min_messages = error;
DROP SCHEMA IF EXISTS public CASCADE;
CREATE SCHEMA public;
CREATE TYPE mood AS ENUM ('happy', 'sad');
CREATE TABLE c (id int);
INSERT INTO c VALUES (1), (2);
CREATE TABLE log (who text);
CREATE SEQUENCE seq;
CREATE FUNCTION f() RETURNS int VOLATILE LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (''f''); RETURN 1; END';
CREATE FUNCTION f(i bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE TABLE a (id int PRIMARY KEY, n int, s text, b bool, t timestamptz, j jsonb, xs int[], m mood);
INSERT INTO a VALUES
  (1, 1, 'abc', true, '2020-01-01', '{"k": "v", "i": 1}', '{1,2}', 'happy'),
  (2, 1, 'xyz', false, '2021-01-01', '{}', '{}', 'sad'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE part (LIKE a) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
INSERT INTO part SELECT * FROM a;
CREATE VIEW quiet AS SELECT * FROM a WHERE id > 0;
CREATE VIEW loud_view AS SELECT id, f(id) AS n, s, b, t, j, xs, m FROM a;
CREATE FUNCTION f(x a) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE FUNCTION add_loudly(p bigint, q bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE OPERATOR <+> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = add_loudly);
CREATE OPERATOR <+++> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = add_loudly);
CREATE FUNCTION check_loudly(p text) RETURNS bool VOLATILE LANGUAGE sql AS 'SELECT f() > 0';
CREATE DOMAIN loud AS int CHECK (check_loudly(VALUE::text));
CREATE DOMAIN citext AS text CHECK (check_loudly(VALUE));
CREATE FUNCTION similarity(p bigint, q bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE CAST (a AS integer) WITH FUNCTION f(a);
CREATE FUNCTION over(i bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE FUNCTION "filter"(i bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE FUNCTION zone(i bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE FUNCTION conflict(i bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE FUNCTION "join"(i bigint) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE FUNCTION writer(i bigint) RETURNS SETOF record VOLATILE LANGUAGE sql AS 'SELECT f()';
CREATE PROCEDURE act() LANGUAGE sql AS 'SELECT f()';
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (tg_op); RETURN NULL; END';
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON c FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TABLE ruled (id int);
CREATE RULE copied AS ON INSERT TO ruled DO ALSO INSERT INTO log VALUES ('rule');
CREATE TABLE fenced (id int);
INSERT INTO fenced VALUES (1);
ALTER TABLE fenced ENABLE ROW LEVEL SECURITY;
CREATE POLICY loud_policy ON fenced USING (f(id) > 0);
GRANT ALL ON SCHEMA public TO reader;
GRANT ALL ON ALL TABLES IN SCHEMA public TO reader;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO reader;
"""
"""Run on an empty database with a role ``reader``; everything that is called ``loud`` writes when it is read."""

HELD = """
SELECT
  pg_current_xact_id_if_assigned() AS transaction,
  ARRAY(SELECT concat_ws(' ', locktype, relation::regclass, mode) FROM pg_locks
        WHERE pid = pg_backend_pid() AND mode <> 'AccessShareLock' AND locktype <> 'virtualxid' ORDER BY 1) AS locks,
  concat_ws(' ', current_setting('app.x', true), current_setting('search_path')) AS settings,
  concat_ws(' ', current_user, session_user, current_setting('role')) AS who
"""
"""What a transaction has beside its reads, asked before it ends."""

LEFT = """
SELECT
  ARRAY(SELECT q::text FROM public.a AS q UNION ALL SELECT q::text FROM public.c AS q
        UNION ALL SELECT who FROM public.log UNION ALL SELECT q::text FROM public.part AS q
        UNION ALL SELECT q::text FROM public.ruled AS q ORDER BY 1) AS rows,
  (SELECT (last_value, is_called)::text FROM public.seq) AS sequence,
  (SELECT md5(string_agg(oid || relname, ',' ORDER BY oid)) FROM pg_class) AS relations,
  (SELECT count(*) FROM pg_proc) + (SELECT count(*) FROM pg_type) + (SELECT count(*) FROM pg_namespace) AS objects,
  (SELECT count(*) FROM pg_largeobject_metadata) AS large_objects,
  pg_my_temp_schema() AS temporary,
  (SELECT md5(string_agg(name || '=' || setting, ',' ORDER BY name)) FROM pg_settings) AS settings,
  current_setting('app.x', true) AS custom,
  concat_ws(' ', current_user, session_user, current_setting('role')) AS who,
  ARRAY(SELECT name FROM pg_prepared_statements) AS prepared,
  ARRAY(SELECT name FROM pg_cursors WHERE is_holdable) AS cursors,
  ARRAY(SELECT pg_listening_channels()) AS channels,
  ARRAY(SELECT concat_ws(' ', locktype, mode, objid) FROM pg_locks WHERE locktype = 'advisory') AS advisory
"""
"""Everything that could have been changed, asked after the transaction has ended."""
