-- Shapes that SQLAlchemy compiles, for psycopg, asyncpg and SQLite.
-- READ: postgresql
SELECT account.id, account.owner_name FROM account WHERE account.id = %(id_1)s::INTEGER
SELECT account.id AS account_id, account.owner_name AS account_owner_name FROM account WHERE account.id = %(pk_1)s::INTEGER
SELECT invoice.account_id AS invoice_account_id, invoice.id AS invoice_id FROM invoice WHERE invoice.account_id IN (%(primary_keys_1)s::INTEGER, %(primary_keys_2)s::INTEGER)
SELECT invoice.id FROM invoice WHERE %(param_1)s::INTEGER = invoice.account_id
SELECT account.id, invoice_1.id AS id_1, invoice_1.total FROM account LEFT OUTER JOIN invoice AS invoice_1 ON account.id = invoice_1.account_id ORDER BY invoice_1.id
SELECT anon_1.id, anon_1.name, line_1.id AS id_1 FROM (SELECT account.id AS id, account.name AS name FROM account ORDER BY account.name LIMIT %(param_1)s::INTEGER OFFSET %(param_2)s::INTEGER) AS anon_1 LEFT OUTER JOIN line AS line_1 ON anon_1.id = line_1.account_id
SELECT a.id FROM a JOIN (b AS b_1 JOIN c AS c_1 ON b_1.id = c_1.b_id) ON a.id = b_1.a_id
SELECT account.id FROM account WHERE account.id IN (SELECT 1 WHERE 1!=1)
SELECT account.id FROM account WHERE (account.id NOT IN (SELECT 1 WHERE 1!=1)) AND account.name = %(name_1)s::VARCHAR
SELECT account.id FROM account WHERE (account.id NOT IN (%(id_1_1)s::INTEGER, %(id_1_2)s::INTEGER))
SELECT account.id FROM account WHERE (account.id, account.name) IN ((%(param_1_1_1)s::INTEGER, %(param_1_1_2)s::VARCHAR))
SELECT account.id FROM account WHERE (account.name LIKE '%%' || %(name_1)s::VARCHAR || '%%') AND account.nick LIKE %(nick_1)s::VARCHAR || '%%' ESCAPE '/'
SELECT account.id FROM account WHERE lower(account.name) LIKE lower(%(name_1)s::VARCHAR) AND account.name ILIKE %(name_2)s::VARCHAR
SELECT account.id FROM account WHERE NOT (EXISTS (SELECT 1 FROM invoice WHERE account.id = invoice.account_id))
SELECT account.id FROM account WHERE EXISTS (SELECT 1 FROM invoice, line WHERE account.id = invoice.account_id AND line.invoice_id = invoice.id)
SELECT EXISTS (SELECT * FROM account WHERE account.id = %(id_1)s::INTEGER) AS anon_1
SELECT count(*) AS count_1 FROM (SELECT account.id AS account_id FROM account) AS anon_1
SELECT count(account.id) AS count_1, max(account.born) AS max_1, coalesce(sum(invoice.total), %(coalesce_1)s::INTEGER) AS total FROM account, invoice
SELECT CASE WHEN (account.id = %(id_1)s::INTEGER) THEN %(param_1)s::VARCHAR WHEN (account.id > %(id_2)s::INTEGER) THEN NULL ELSE account.name END AS kind FROM account
SELECT CAST(account.id AS VARCHAR) AS id, CAST(%(param_1)s AS NUMERIC(10, 2)) AS price, CAST(account.seen AS TIMESTAMP WITH TIME ZONE) AS seen FROM account
SELECT EXTRACT(epoch FROM account.seen) AS anon_1, account.seen AT TIME ZONE %(seen_1)s::VARCHAR AS anon_2 FROM account
SELECT account.id %% %(id_1)s::INTEGER AS anon_1, account.id / CAST(%(id_2)s::INTEGER AS NUMERIC) AS anon_2, FLOOR(account.id / %(id_3)s) AS anon_3 FROM account
SELECT account.name COLLATE "de_DE" AS anon_1, account.name ~ %(name_1)s::VARCHAR AS anon_2, account.name !~* %(name_2)s::VARCHAR AS anon_3 FROM account
SELECT account.tags[%(tags_1)s::INTEGER] AS anon_1, account.tags[%(tags_2)s::INTEGER:%(tags_3)s::INTEGER] AS anon_2 FROM account
SELECT account.id FROM account WHERE %(param_1)s::VARCHAR = ANY (account.tags) AND account.tags @> ARRAY[%(param_2)s::VARCHAR]::VARCHAR[]
SELECT account.data -> %(data_1)s::TEXT AS anon_1, account.data ->> %(data_2)s::TEXT AS anon_2, account.data #>> %(data_3)s::TEXT[] AS anon_3 FROM account
SELECT account.id FROM account WHERE (account.data @> %(data_1)s::JSONB) AND account.data ? %(data_2)s::TEXT AND (account.data ?| ARRAY[%(param_1)s::TEXT])
SELECT account.data['key'] AS anon_1, account.data[%(data_1)s::TEXT][%(param_1)s::INTEGER] AS anon_2 FROM account
SELECT account.id FROM account WHERE account.words @@ plainto_tsquery(%(words_1)s::REGCONFIG, %(words_2)s::VARCHAR)
SELECT row_number() OVER (PARTITION BY account.kind ORDER BY account.id DESC) AS rn, sum(account.n) OVER (ORDER BY account.id ROWS BETWEEN %(param_1)s::INTEGER PRECEDING AND CURRENT ROW) AS s FROM account
SELECT percentile_cont(%(percentile_cont_1)s::NUMERIC) WITHIN GROUP (ORDER BY account.n) AS anon_1, count(*) FILTER (WHERE account.n > %(n_1)s::INTEGER) AS anon_2 FROM account
SELECT array_agg(account.name ORDER BY account.id) AS names, string_agg(account.name, %(string_agg_1)s::VARCHAR ORDER BY account.id) AS joined FROM account
SELECT DISTINCT ON (account.kind, account.id + %(id_1)s::INTEGER) account.id FROM account ORDER BY account.kind
SELECT account.id FROM account ORDER BY account.id OFFSET (%(param_1)s::INTEGER) ROWS FETCH FIRST (%(param_2)s::INTEGER) ROWS WITH TIES
SELECT account.id FROM account AS account_1 TABLESAMPLE bernoulli(%(bernoulli_1)s::NUMERIC) REPEATABLE (%(param_1)s::INTEGER)
SELECT account.id, anon_1.total FROM account JOIN LATERAL (SELECT invoice.total AS total FROM invoice WHERE invoice.account_id = account.id LIMIT %(param_1)s::INTEGER) AS anon_1 ON true
SELECT anon_1.value FROM generate_series(%(generate_series_1)s::INTEGER, %(generate_series_2)s::INTEGER) AS anon_1(value)
SELECT t.n, t.o FROM unnest(%(unnest_1)s::INTEGER[]) WITH ORDINALITY AS t(n, o)
SELECT r.a, r."b c" FROM jsonb_to_recordset(%(jsonb_to_recordset_1)s::JSONB) AS r(a INTEGER, "b c" VARCHAR(10))
SELECT row_to_json(anon_1) AS row_to_json_1, anon_1 FROM (SELECT account.id AS id FROM account) AS anon_1
SELECT v.a, v.b FROM (VALUES (%(param_1)s::INTEGER, %(param_2)s::VARCHAR), (%(param_3)s::INTEGER, %(param_4)s::VARCHAR)) AS v (a, b)
WITH recent AS (SELECT invoice.id AS id FROM invoice WHERE invoice.total > %(total_1)s::NUMERIC(10, 2)) SELECT account.id FROM account, recent WHERE account.id = recent.id
WITH RECURSIVE tree(id, depth) AS (SELECT node.id AS id, %(param_1)s::INTEGER AS depth FROM node UNION ALL SELECT node.id, tree.depth + %(depth_1)s::INTEGER AS anon_1 FROM node JOIN tree ON node.parent_id = tree.id) SELECT tree.id FROM tree
WITH outer_1 AS (WITH inner_1 AS (SELECT %(param_1)s::INTEGER AS x) SELECT inner_1.x FROM inner_1) SELECT outer_1.x FROM outer_1
(SELECT a.id FROM a LIMIT %(param_1)s::INTEGER) UNION ALL (SELECT b.id FROM b LIMIT %(param_2)s::INTEGER) LIMIT %(param_3)s::INTEGER
SELECT anon_1.id FROM (SELECT a.id AS id FROM a UNION SELECT b.id AS id FROM b) AS anon_1 WHERE anon_1.id IS NOT NULL
SELECT sum(t.n) AS sum_1 FROM t GROUP BY ROLLUP(t.a, t.b), CUBE(t.c), GROUPING SETS((t.d, t.e), (t.f), ())
SELECT s2.t.id FROM s1.t, s2.t WHERE s1.t.id = s2.t.id
SELECT "user"."select", "user"."Group By" AS "Label with %% sign" FROM "user" AS "User_1"
SELECT account.id FROM ONLY account
SELECT $1::INTEGER AS anon_1, account.name FROM account WHERE account.id = $2::INTEGER AND account.key = $3::UUID
SELECT account.id FROM account WHERE account.born BETWEEN $1::DATE AND $2::DATE AND account.seen > $3::TIMESTAMP WITH TIME ZONE
SELECT account.id FROM account WHERE account.data = $1::JSON AND account.price < $2::NUMERIC(10, 2) AND account.active IS true
SELECT account.id FROM account WHERE account.span @> $1::TSTZRANGE AND account.gap && $2::INT4MULTIRANGE AND account.wait > $3::INTERVAL

-- READ: sqlite
SELECT account.id, account.owner_name FROM account WHERE account.id = ?
SELECT account.id FROM account WHERE account.id IN (?, ?, ?) ORDER BY account.name DESC NULLS LAST LIMIT ? OFFSET ?
SELECT account.id FROM account WHERE account.id IN (SELECT 1 FROM (SELECT 1) WHERE 1!=1) LIMIT -1 OFFSET ?
SELECT JSON_QUOTE(JSON_EXTRACT(account.data, ?)) AS anon_1, JSON_EXTRACT(account.data, ?) AS anon_2 FROM account
SELECT CAST(STRFTIME('%Y', account.born) AS INTEGER) AS anon_1, account.id / (? + 0.0) AS anon_2, account.name || ? AS anon_3 FROM account
SELECT account.id FROM account WHERE account.name MATCH ? AND account.nick REGEXP ? AND account.active IS 1 AND (lower(account.name) LIKE lower(?))
SELECT (account.id, account.name) = (?, ?) AS anon_1, group_concat(account.name, ?) AS names FROM account GROUP BY account.kind HAVING count(*) > ?
WITH RECURSIVE tree(id) AS (SELECT node.id AS id FROM node UNION ALL SELECT node.id FROM node JOIN tree ON node.parent_id = tree.id) SELECT tree.id FROM tree
SELECT anon_1.id FROM (SELECT account.id AS id FROM account LIMIT ? OFFSET ?) AS anon_1 LEFT OUTER JOIN invoice AS invoice_1 ON anon_1.id = invoice_1.account_id

-- WRITE: postgresql
INSERT INTO account (name, born) VALUES (%(name)s::VARCHAR, %(born)s::DATE) RETURNING account.id
INSERT INTO account (name) SELECT p0::VARCHAR FROM (VALUES (%(name__0)s, 0), (%(name__1)s, 1)) AS imp_sen(p0, sen_counter) ORDER BY sen_counter RETURNING account.id, account.id AS id__1
INSERT INTO account (id, name) VALUES (%(id)s::INTEGER, %(name)s::VARCHAR) ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE account.name != excluded.name RETURNING account.id
INSERT INTO account (id) VALUES (%(id)s::INTEGER) ON CONFLICT ON CONSTRAINT account_pkey DO NOTHING
INSERT INTO archive (id) SELECT account.id FROM account WHERE account.id < %(id_1)s::INTEGER
UPDATE account SET name=%(name)s::VARCHAR, seen=now() WHERE account.id = %(account_id)s::INTEGER
UPDATE account SET n=(account.n + %(n_1)s::INTEGER) WHERE account.id IN (%(id_1_1)s::INTEGER) RETURNING account.id, account.n
UPDATE account SET name=invoice.name FROM invoice WHERE account.id = invoice.account_id
DELETE FROM account USING invoice WHERE account.id = invoice.account_id
DELETE FROM account WHERE account.id = $1::INTEGER
WITH gone AS (DELETE FROM account WHERE account.id = %(id_1)s::INTEGER RETURNING account.id) SELECT gone.id FROM gone
SELECT account.id FROM account WHERE account.id = %(pk_1)s::INTEGER FOR UPDATE
SELECT account.id FROM account FOR NO KEY UPDATE OF account SKIP LOCKED
SELECT account.id FROM account FOR SHARE NOWAIT
SELECT account.id FROM account FOR KEY SHARE OF account, invoice

-- OTHER: postgresql
INSERT INTO account (id, name) VALUES (nextval('account_id_seq'), %(name)s::VARCHAR)
select nextval('account_id_seq')
SELECT account.id FROM account WHERE account.mood = %(mood_1)s::mood
SELECT account.id FROM account WHERE account.mood IN ($1::app.mood, $2::app.mood)
SELECT my_function(account.id) AS my_function_1 FROM account
SELECT app.rank(account.id) AS rank_1 FROM account
SELECT pg_catalog.version()
select pg_catalog.version()
show standard_conforming_strings
SELECT CAST(account.kind AS app.kind) AS kind FROM account
DECLARE "c_7f3a" CURSOR FOR SELECT account.id FROM account
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE
CREATE TABLE account (id SERIAL NOT NULL, PRIMARY KEY (id))
