-- WRITE: postgresql
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
-- What a setting is within a transaction: the guard's READ ONLY is seen outside.
SELECT current_setting('transaction_read_only')
SELECT CURRENT_SETTING ('Transaction_Read_Only', true)::boolean
SELECT current_setting($1)
SELECT current_setting(%(name)s::varchar, true)
SELECT current_setting('transaction_' || 'read' || '_only')
SELECT * FROM t WHERE a = (SELECT current_setting(name) FROM u)
SELECT setting FROM pg_settings WHERE name = $1
SELECT setting FROM pg_catalog.pg_settings WHERE name = 'transaction_read_only'
WITH s AS (SELECT * FROM "pg_settings" AS p) SELECT * FROM s
SAVEPOINT sa_savepoint_1
RELEASE SAVEPOINT sa_savepoint_1
ROLLBACK TO SAVEPOINT "Sa";
ROLLBACK TO sp
RELEASE sp
WITH a AS (WITH d AS (DELETE FROM t RETURNING id) SELECT id FROM d) SELECT * FROM a
SELECT * FROM t WHERE a IN (SELECT b FROM u FOR UPDATE)
SELECT a FROM t FOR UPDATE SKIP LOCKED LIMIT 5
SELECT a FROM t ORDER BY a LIMIT 5 FOR NO KEY UPDATE SKIP LOCKED
SELECT a FROM t FOR/* x */KEY/* y */SHARE
WITH j AS (SELECT id FROM job ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) UPDATE job SET state = 'taken' FROM j WHERE job.id = j.id RETURNING job.*
WITH d AS (DELETE FROM t WHERE a < now() RETURNING *), i AS (INSERT INTO old SELECT * FROM d) SELECT count(*) FROM d
WITH m AS (MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE RETURNING t.id) SELECT id FROM m
INSERT INTO t (a) VALUES (1) ON CONFLICT (a) WHERE b IS NULL DO UPDATE SET a = excluded.a, c = coalesce(t.c, 0) + 1 RETURNING a, (xmax = 0) AS inserted
INSERT INTO t (a) SELECT a FROM u WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.a = u.a) ON CONFLICT DO NOTHING
INSERT INTO s."T" ("a b", c) VALUES (DEFAULT, (SELECT max(x) FROM u)), ($1, $2::jsonb)
UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END, (c, d) = ROW(1, 2), e = e || '{"k": 1}'::jsonb WHERE id = ANY ($1::uuid[])
UPDATE t SET "set" = 1, for_update = 2 FROM u, LATERAL (SELECT 1 AS x) AS l WHERE t.id = u.id AND l.x = 1
UPDATE t SET data['k'] = '1', tags[1:2] = ARRAY['a', 'b'] WHERE id = %(id)s
DELETE FROM t AS x USING u, v WHERE x.id = u.id AND EXISTS (SELECT 1 FROM w) RETURNING x.id AS gone
VALUES (1) FOR UPDATE
SAVEPOINT "a;b"

-- WRITE: sqlite
INSERT INTO t (a) VALUES (?), (?) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING id
INSERT OR REPLACE INTO t VALUES (?, ?)
INSERT OR IGNORE INTO main.t (a) SELECT b FROM u
REPLACE INTO t (a) VALUES (1)
WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x
UPDATE OR IGNORE t SET a = ? WHERE b = :b
DELETE FROM t WHERE a IN (?, ?)
SAVEPOINT sp
ROLLBACK TRANSACTION TO SAVEPOINT sp
INSERT OR ROLLBACK INTO t DEFAULT VALUES
INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING
INSERT INTO t SELECT * FROM u WHERE true ON CONFLICT (a) DO UPDATE SET b = b + 1
UPDATE t SET (a, b) = (SELECT 1, 2), c = json_set(c, '$.k', 1) FROM u WHERE u.id = t.id
UPDATE main.t INDEXED BY ix SET a = 1
DELETE FROM t NOT INDEXED WHERE a IS NULL RETURNING rowid

-- WRITE: postgresql, sqlite
insert into t(a) values('INSERT INTO u; --')
/* why */ DELETE FROM t -- all of it
UPDATE t SET a = 1;
WITH x(a) AS (SELECT 1) UPDATE t SET a = 2 WHERE a IN (SELECT a FROM x)
SAVEPOINT sp;
release/**/savepoint/**/sp

-- Where no server takes it: nothing is lost by a transaction around the error.
-- WRITE: postgresql, sqlite
SELECT * FROM (DELETE FROM t RETURNING a) AS x
SELECT * FROM (INSERT INTO t VALUES (1) RETURNING a) AS x
SELECT (UPDATE t SET a = 1 RETURNING a)
SELECT 1 WHERE EXISTS (DELETE FROM t RETURNING 1)
SELECT a IN (DELETE FROM t RETURNING a)
(DELETE FROM t)
(((UPDATE t SET a = 1)))
