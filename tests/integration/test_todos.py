from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

import headgate.lab.todos
from headgate.errors import LabError
from headgate.lab.environment import clean_environment
from headgate.lab.todos import REVISION, ROWS, configure, ensure_todos, is_intact, migrate

SOURCE = Path(headgate.lab.todos.__file__).parents[2]


def query(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_a_million_todos_are_made_within_five_seconds_and_kept(tmp_path: Path) -> None:
    began = time.monotonic()
    path = ensure_todos(tmp_path)
    took = time.monotonic() - began
    assert query(path, "SELECT count(*), count(completed_at), max(id) FROM todo") == [(ROWS, ROWS // 2, ROWS)]
    assert took < 5
    made = path.stat()
    assert ensure_todos(tmp_path) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [path]


def test_sqlalchemy_reads_what_the_migration_wrote(tmp_path: Path) -> None:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(ensure_todos(tmp_path, 4))))
    todo = sa.Table("todo", sa.MetaData(), autoload_with=engine)
    assert [column.name for column in todo.columns] == ["id", "title", "completed_at"]
    with engine.connect() as connection:
        rows = connection.execute(sa.select(todo).order_by(todo.c.id)).all()
    engine.dispose()
    assert [(row.id, row.title) for row in rows] == [(i, f"Todo {i}") for i in (1, 2, 3, 4)]
    assert [row.completed_at for row in rows] == [
        None,
        datetime(2024, 1, 1, 0, 0, 2),
        None,
        datetime(2024, 1, 1, 0, 0, 4),
    ]


def test_the_revision_checked_is_alembics_head(tmp_path: Path) -> None:
    with sa.create_engine("sqlite://").connect() as connection:
        config = configure(connection, 2)
        assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_the_migration_goes_down_again(tmp_path: Path) -> None:
    path = tmp_path / "todos.sqlite3"
    migrate(path, 10)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    with engine.connect() as connection:
        command.downgrade(configure(connection, 10), "base")
        connection.commit()
    engine.dispose()
    assert query(path, "SELECT name FROM sqlite_master WHERE name = 'todo'") == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM todo WHERE id = 17",
        "UPDATE todo SET completed_at = NULL WHERE id = 18",
        "UPDATE alembic_version SET version_num = '0000'",
        "DROP TABLE todo",
        "DROP TABLE alembic_version",
    ],
)
def test_a_file_that_was_changed_is_made_again(tmp_path: Path, statement: str) -> None:
    path = ensure_todos(tmp_path, 1000)
    change(path, statement)
    assert not is_intact(path, 1000)
    assert is_intact(ensure_todos(tmp_path, 1000), 1000)


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_a_file_cut_short_is_made_again(tmp_path: Path, size: int) -> None:
    path = ensure_todos(tmp_path, 5000)
    os.truncate(path, size)
    assert not is_intact(path, 5000)
    assert is_intact(ensure_todos(tmp_path, 5000), 5000)


def test_a_reader_keeps_its_file_while_another_lab_replaces_it(tmp_path: Path) -> None:
    path = ensure_todos(tmp_path, 1000)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT count(*) FROM todo").fetchone() == (1000,)
        headgate.lab.todos._replace(path, 1000)
        assert reader.execute("SELECT count(*) FROM todo").fetchone() == (1000,)


def test_two_labs_at_once_both_get_a_whole_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from headgate.lab.todos import ensure_todos, is_intact\n"
        "assert is_intact(ensure_todos(Path(sys.argv[1]), 200000), 200000)"
    )
    environment = clean_environment() | {"PYTHONPATH": str(SOURCE)}
    labs = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "cache")], env=environment) for _ in range(3)
    ]
    assert [lab.wait(40) for lab in labs] == [0, 0, 0]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["todos-200000.sqlite3"]


def test_what_a_killed_lab_left_is_removed_and_a_running_ones_is_not(tmp_path: Path) -> None:
    for name, age in ((".todos-old", 700), (".todos-new", 30)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    ensure_todos(tmp_path, 10)
    assert {path.name for path in tmp_path.iterdir()} == {".todos-new", "todos-10.sqlite3"}


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"cannot make .*: Not a directory; .* HEADGATE_CACHE"):
        ensure_todos(tmp_path / "file" / "cache", 10)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path, rows: int) -> None:
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 3")
            command.upgrade(configure(connection, rows), "head")

    monkeypatch.setattr(headgate.lab.todos, "migrate", fill)
    with pytest.raises(LabError, match=r"cannot make .*: database or disk is full; free some space"):
        ensure_todos(tmp_path, 100_000)
    assert list(tmp_path.iterdir()) == []
