-- Types on no list may be domains, whose checks call functions.
-- OTHER: postgresql, sqlite
SELECT CAST(a AS my_type) FROM t
SELECT CAST(a AS s.text) FROM t
SELECT CAST(a AS "text") FROM t
SELECT CAST(a AS text.b) FROM t
SELECT CAST(a AS mood) FROM t
SELECT CAST(a AS "Mood") FROM t
SELECT CAST(a AS s.mood) FROM t
SELECT CAST(a AS f(1)) FROM t
SELECT CAST(a AS text COLLATE x.y(1)) FROM t
SELECT CAST(CAST(a AS text) AS mood) FROM t
SELECT CAST((SELECT a::mood) AS text)

-- OTHER: postgresql
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
SELECT * FROM json_to_record('{}') lower(a my_type)
SELECT * FROM json_to_record('{}') over (a my_type)
SELECT * FROM json_to_record('{}') row (a my_type)
SELECT * FROM json_to_record('{}') values (a my_type)
SELECT * FROM json_to_record('{}') between (a my_type)
SELECT * FROM json_to_record('{}') exists (a my_type)
SELECT * FROM json_to_record('{}') range (a my_type)
SELECT * FROM json_to_record('{}') escape (a my_type)
SELECT * FROM json_to_record('{}') repeatable (a my_type)
SELECT json_value('{}', '$' RETURNING my_type)
SELECT xmlserialize(CONTENT a AS my_type) FROM t
SELECT TREAT(a AS my_type) FROM t
SELECT a::mood FROM t
SELECT a::mood[] FROM t
SELECT %(a)s::mood
SELECT $1::"Mood"
SELECT $1::s.mood
SELECT $1::"s"."mood"
SELECT a::_text FROM t
SELECT a::t FROM t
SELECT a::t.b%TYPE FROM t
SELECT a::SETOF int
SELECT a::numeric(f(1)) FROM t
SELECT a::text(1, "f") FROM t
SELECT a::varchar(10)(1) FROM t
SELECT a::pg_catalog.int4 FROM t
SELECT CAST(a AS pg_catalog.text) FROM t
SELECT mood 'sad'
SELECT s.mood 'sad'
SELECT "text" 'a'
SELECT pg_catalog.date '2020-01-01'
SELECT * FROM jsonb_to_recordset('[]') AS r(a int, b mood)
SELECT * FROM jsonb_to_recordset('[]') AS r(a int, b s.mood)
SELECT a = ANY (%(x)s::mood[]) FROM t
INSERT INTO t (a) VALUES ($1::mood)
UPDATE t SET a = %(a)s::mood
