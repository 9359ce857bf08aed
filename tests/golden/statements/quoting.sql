-- Characters, literals, comments.
-- OTHER: postgresql, sqlite
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
SELECT 'a\\'
SELECT '\'
SELECT "a\"
SELECT E'\''; DELETE FROM t; --'
SELECT e'\047'
SELECT /* x */ E'a'
SELECT E/* x */'a'
SELECT u&'a'
SELECT U&"\0066"(1)
SELECT b'1', x'ff'
SELECT N'x'
SELECT $$; DELETE FROM t$$
SELECT $a$ $b$ $a$ $b$
SELECT $_$x$_$
SELECT 'a'$$b$$
SELECT $ 1
SELECT a$1 FROM t
SELECT $a
SELECT 'it's'
SELECT "it"s"
SELECT 'a' "b' FROM t
SELECT 1 /* ' */ ' FROM t
SELECT 1 /* "
SELECT 1 /*/ x
SELECT /*/* x */*/ 1
/* /* */ SELECT ' */ DELETE FROM t --'
SELECT 1 /* /* */ AS " */ ; DELETE FROM t --"
SELECT 1 // 2; x
SELECT 1 ## 'x
SELECT {fn now()}
SELECT @@version; x
SELECT ?::x
SELECT 1 :: :: 2
SELECT ¥
SELECT '¥'
SELECT '₩'
SELECT "¥"
SELECT ’a’
SELECT “a”
SELECT ａ
SELECT ＇a＇
SELECT é(1)
SELECT аbs(1)
SELECT 1；
SELECT　1
SELECT 0b11, 0o7
SELECT 1e
SELECT 1.e+5x
SELECT 5.5.5
SELECT 1 2
SELECT a[1
SELECT a]1[
SELECT ((1)
SELECT )1(

-- Placeholders that are none, or that quotes and comments hide from the eye but not from the driver.
-- OTHER: postgresql
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
SELECT 1 */
SELECT 1 /**/*/
SELECT 1 /* -- */ */
SELECT '%s'
SELECT a FROM t WHERE b LIKE '%%%s%%'
SELECT "%(a)s" FROM t
SELECT 1 /* %(a)s */
SELECT 1 -- 100%s
SELECT '%b', '%t'
SELECT %s %s
SELECT %s$1
SELECT $1$2
SELECT $1a
SELECT $1.f
SELECT $1(1)
SELECT %(a)s'b'
SELECT %(a)s"b"
SELECT %b(1)
SELECT a %(b) 2
SELECT :a, :b
SELECT a::%s
SELECT CAST(a AS %s)
SELECT %%s

-- SQLite's own: pragmas are tables, brackets and backticks quote, functions that need their connection.
-- OTHER: sqlite
SELECT 'a' %s(1)
SELECT * FROM pragma_optimize
SELECT * FROM "pragma_optimize"
SELECT * FROM 'Pragma_Optimize'
SELECT * FROM pragma_table_info('t')
SELECT [a] FROM t
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
SELECT #1
SELECT :1a(2)
SELECT @a(1)
SELECT ?1(2)
SELECT $a::b
SELECT a FROM [t]
SELECT `f`(1)
SELECT [f](1)
SELECT * FROM pragma_journal_mode
SELECT * FROM PRAGMA_foreign_keys
SELECT * FROM main.pragma_user_version
SELECT name FROM t, "pragma_table_info"('t')
SELECT fts5_source_id()
SELECT matchinfo(f) FROM f
SELECT offsets(f) FROM f
SELECT sqlite_compileoption_used('x')
SELECT zipfile(a) FROM t
SELECT fsdir('x')
SELECT * FROM t WHERE a = last_insert_rowid()
SELECT abs(1) OVER w, sqlite_offset(a) FROM t
INSERT INTO t (a) VALUES (last_insert_rowid())
INSERT INTO f (f) VALUES (optimize(1))
SELECT a FROM t FOR SHARE
SELECT a::int FROM t
SELECT a ? b FROM t
SELECT 1 INTO t
