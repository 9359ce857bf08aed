-- READ: postgresql
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
SELECT time '10:00', jsonb '{}', double precision '1.5', interval '1' day
SELECT now(), current_timestamp, current_timestamp(3), localtime, current_date, clock_timestamp()
SELECT current_user, session_user, user, current_catalog, current_setting('x', true)
SELECT current_setting('app.tenant')::integer, current_setting ( 'search_path' )
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
SELECT a FROM t ORDER BY a OFFSET 1 ROW FETCH NEXT (%(n)s) ROWS WITH TIES
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
WITH RECURSIVE t AS (SELECT 1 AS a, 2 AS b UNION ALL SELECT a, b FROM t) SEARCH DEPTH FIRST BY a, b SET o, u AS (SELECT 2) SELECT * FROM t
WITH RECURSIVE t AS (SELECT 1 AS a, 2 AS b UNION ALL SELECT a, b FROM t) CYCLE a, b SET c TO 'y' DEFAULT 'n' USING p SELECT * FROM t
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
SELECT a FROM t WHERE (a, b) > (1, 2) ORDER BY a, b LIMIT 10
SELECT x.*, row_number() OVER (PARTITION BY b ORDER BY c DESC NULLS LAST) AS rn FROM t AS x
SELECT * FROM t WHERE c >= now() - interval '7 days' AND d < current_date + 1 AND e > now() - make_interval(days => %(d)s)
SELECT count(*) FROM (SELECT DISTINCT a, b FROM t) AS q
SELECT q.a FROM (VALUES (1, 'x'), (2, 'y')) AS q (a, b) LEFT JOIN LATERAL (SELECT count(*) FROM u WHERE u.a = q.a) AS c ON true
SELECT data #- '{a}', data - 'k', data || '{}', data @? '$.a ? (@ > 1)', data ->> 0, data -> -1 FROM t
SELECT data IS JSON, data IS NOT JSON OBJECT FROM t
SELECT a FROM t WHERE b @> ARRAY[1] AND c && $1::integer[] AND d <@ int4range(1, 5) AND e -|- numrange(1, 2)
SELECT a FROM t WHERE a <> ALL (ARRAY['x', 'y']) AND NOT (b = ANY (%(b)s)) AND c NOT IN (SELECT d FROM u)
SELECT array_agg(DISTINCT a ORDER BY a), (array_agg(b))[1], (ARRAY[1, 2, 3])[2:], cardinality(ARRAY[[1], [2]]) FROM t
SELECT a FROM t UNION SELECT b FROM u INTERSECT SELECT c FROM v EXCEPT ALL SELECT d FROM w ORDER BY 1 OFFSET 2 ROWS
(SELECT a FROM t ORDER BY a LIMIT 1) UNION ALL (SELECT a FROM t ORDER BY a DESC LIMIT 1)
SELECT * FROM (t AS x CROSS JOIN u) JOIN v USING (id) AS j
SELECT * FROM a.b.t, "A"."B"."T", s.t *
SELECT DISTINCT date_trunc('month', a) FROM t GROUP BY 1 HAVING bool_and(b) AND every(c)
SELECT first_value(a) OVER w, nth_value(a, 2) OVER (w RANGE UNBOUNDED PRECEDING) FROM t WINDOW w AS (PARTITION BY b ORDER BY c)
SELECT max(a) OVER (ORDER BY b GROUPS BETWEEN 1 FOLLOWING AND 2 FOLLOWING EXCLUDE CURRENT ROW) FROM t
SELECT percentile_disc(ARRAY[0.25, 0.5]) WITHIN GROUP (ORDER BY a), mode() WITHIN GROUP (ORDER BY b), rank(1) WITHIN GROUP (ORDER BY c) FROM t
WITH RECURSIVE tree AS (SELECT id, ARRAY[id] AS path FROM t WHERE p IS NULL UNION ALL SELECT t.id, path || t.id FROM t JOIN tree ON t.p = tree.id WHERE NOT t.id = ANY (path)) SELECT * FROM tree
WITH a AS (VALUES (1, 2)), b AS MATERIALIZED ((SELECT 1) UNION (SELECT 2)) SELECT * FROM a NATURAL JOIN b
SELECT CASE WHEN a IN (1, 2) AND EXISTS (SELECT 1 FROM u) THEN (SELECT max(b) FROM v) ELSE -1 END::numeric(4, 1) FROM t
SELECT CAST(CAST(a AS text) AS varchar(3)[]), (a)::text::int, -a::int, (a, b)::text, ROW(a, b) = ROW(1, 2), t IS NULL FROM t
SELECT to_char(now() AT TIME ZONE 'Europe/Berlin', 'YYYY-MM-DD"T"HH24:MI'), extract(isodow FROM date '2020-01-01')
SELECT trim(TRAILING FROM a), trim(a), normalize(a, NFC), a IS NFC NORMALIZED FROM t
SELECT coalesce(nullif(trim(a), ''), 'none') || ':' || lpad(b::text, 3, '0') || repeat('-', 2) FROM t
SELECT a FROM t WHERE a LIKE ANY (ARRAY['x%%', 'y%%']) AND b ~* '^a.*z$' AND c !~ 'q' AND d ~~* 'E%%'
SELECT jsonb_pretty(jsonb_agg(jsonb_build_object('id', a, 'tags', (SELECT jsonb_agg(g) FROM unnest(tags) AS g)))) FROM t
SELECT * FROM jsonb_each_text('{"a": 1}') AS e(k, v), jsonb_array_elements('[1]') WITH ORDINALITY AS x(o, n)
SELECT ts_rank_cd(v, websearch_to_tsquery('english', %(q)s)) AS r FROM t WHERE v @@ websearch_to_tsquery('english', %(q)s) ORDER BY r DESC
SELECT id, e <-> %(v)s::vector AS distance FROM t WHERE l2_distance(e, %(v)s::vector(3)) < 1 ORDER BY e <-> %(v)s::vector LIMIT 5
SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND has_schema_privilege(oid, 'USAGE')
SELECT c.relname, pg_relation_size(c.oid), obj_description(c.oid, 'pg_class') FROM pg_class AS c WHERE c.relkind IN ('r', 'p')
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %(t)s AND table_schema = ANY (current_setting('x')::text[])
SELECT last_value, is_called FROM some_sequence
SELECT a AS "select", b AS "for update", c "into" FROM "delete" "update"
SELECT t.nextval, t.current_schema, t."f", (t).f FROM t

-- READ: sqlite
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
SELECT a FROM t WHERE b IS ? AND c IS NOT ? AND d = ? COLLATE NOCASE ORDER BY e LIMIT ? OFFSET ?
SELECT a, row_number() OVER (PARTITION BY b ORDER BY c) FROM t WHERE d NOT BETWEEN ? AND ?
SELECT json_each.key, json_each.value FROM t, json_each(t.a, '$.x') WHERE json_valid(t.a) AND json_type(t.a) = 'object'
SELECT json_group_array(json_object('id', a, 'x', b)), json_group_object(a, b) FROM t
SELECT t.rowid, t.oid, _rowid_ FROM t WHERE rowid IN (SELECT rowid FROM f WHERE f MATCH ?) ORDER BY bm25(f)
SELECT snippet(f, 0, '<b>', '</b>', '', 8), highlight(f, 0, '[', ']') FROM f WHERE f MATCH 'cat OR dog'
SELECT a FROM main.t AS x LEFT JOIN temp.u USING (id) WHERE x.a GLOB 'a*' AND NOT x.b REGEXP ?
SELECT CAST(a AS NUMERIC(10, 2)), CAST(b AS DATETIME), a -> 'k' ->> 0, a << 2 | 1, b % 3, ~c FROM t
SELECT max(a, b), min(a, b), round(a, 1), substr(a, 2, 3), instr(a, 'x'), trim(a, ' '), coalesce(a, b), nullif(a, 0) FROM t
SELECT total_changes FROM t WHERE last_insert_rowid = 1
SELECT a FROM t NATURAL LEFT OUTER JOIN u CROSS JOIN v
WITH x AS NOT MATERIALIZED (SELECT 1), y(a, b) AS (VALUES (1, 2), (3, 4)) SELECT * FROM x, y
SELECT * FROM generate_series(1, 10, 2)
SELECT 'a' 'b'

-- Hints, comments, spaces, quotes, letters.
-- READ: postgresql, sqlite
/*+ IndexScan(t t_pkey) Set(random_page_cost 1.1) */ SELECT a FROM t
SELECT /*+ Leading((a b)) */ a.id FROM a JOIN b ON a.id = b.id
/* NO LOAD BALANCE */ SELECT 1
/*FORCE_MASTER*/ SELECT 1
SELECT 1 /* traceparent='00-4bf92f3577b34da6-00',route='users' */
SELECT 1 -- app:checkout, line 5: it's "fine"; DROP TABLE t
SELECT/**/1/**/AS/**/a/**/FROM/**/t
SELECT 'SELECT 1; DELETE FROM t', '/* */ -- '' x', '"', '$$', 'E''x'
SELECT "a""b", "'", ";", "--", "/*", "select" FROM "t t"
SELECT ((((1)))), (((SELECT ((2)))))
SELECT(1),(2)FROM t WHERE(a)=(b)AND(c)IN(1,2)
sElEcT a FrOm T wHeRe B iS nOt NuLl
SELECT 'ÿ', 'Ω', '你好', '👍', 'İı', 'ß' FROM "Ωmega" WHERE "naïve" = '''é'''
SELECT u& 'a' FROM t
