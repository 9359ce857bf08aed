"""A statement's shape has nothing of what it is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.xray.shapes import MOST_TEXT, statement_shape


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("SELECT 1", "SELECT ?"),
        ("SELECT a1, t2.b3 FROM t2\n  WHERE x = 1.5e3", "SELECT a1, t2.b3 FROM t2 WHERE x = ?"),
        ("SELECT * FROM t WHERE name = 'O''Hara' AND n = 5", "SELECT * FROM t WHERE name = ? AND n = ?"),
        (r"SELECT E'it\'s secret', 2", "SELECT ?, ?"),
        ("SELECT $$it's$$, $a$ $$ $a$", "SELECT ?, ?"),
        ("SELECT 'cut off", "SELECT ?"),
        ("SELECT /* user 5 */ x -- mail\nFROM t", "SELECT x FROM t"),
        ('SELECT "Col 1" FROM t', 'SELECT "Col 1" FROM t'),
        ("x = $1::INTEGER AND y = $2", "x = $1::INTEGER AND y = $2"),
        ("x = %(id_1)s AND y = :y_1 AND z = ?", "x = %(id_1)s AND y = :y_1 AND z = ?"),
        ("id IN ($1::INTEGER, $2::INTEGER)", "id IN (…)"),
        ("id IN (1, 2, 3)", "id IN (…)"),
        ("id IN (%(a_1)s, %(a_2)s)", "id IN (…)"),
        ("INSERT INTO t (a, b) VALUES (?, ?), (?, ?)", "INSERT INTO t (a, b) VALUES (…)"),
        ("LIMIT -5", "LIMIT -?"),
    ],
)
def test_shape(text: str, shape: str) -> None:
    assert statement_shape(text) == shape


def test_a_list_of_any_length_has_one_shape() -> None:
    shapes = {statement_shape(f"SELECT a FROM t WHERE id IN ({', '.join('?' * n)})") for n in (2, 3, 50)}
    assert len(shapes) == 1


def test_a_long_text_is_cut_also_within_a_literal() -> None:
    shape = statement_shape("SELECT '" + "secret" * MOST_TEXT)
    assert shape == "SELECT ? …"


@given(st.text(alphabet="abc'\\\n;-/*$\"", max_size=30))
def test_no_quoted_literal_survives(value: str) -> None:
    quoted = "'SECRET" + value.replace("'", "''") + "'"
    assert "SECRET" not in statement_shape(f"SELECT a FROM t WHERE x = {quoted}")
