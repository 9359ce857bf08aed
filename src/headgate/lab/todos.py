"""The SQLite file of the experiment ``ping``: made once by its Alembic migration, kept between runs."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from headgate.errors import LabError
from headgate.lab.cache import OVERRIDE, cache_directory

ROWS = 1_000_000
MIGRATIONS = Path(__file__).parent / "apps" / "migrations"
REVISION = "0001"
"""Head of the migrations; a file at another revision is made again."""

_PREFIX = ".todos-"
_ABANDONED_SECONDS = 600.0


def ensure_todos(directory: Path | None = None, rows: int = ROWS) -> Path:
    """Return the file with ``rows`` todos, half of them completed; make it if it is missing or damaged.

    Safe for several labs at once: the file appears whole or not at all, and one in use is never changed.

    :param directory: the user's cache directory by default.
    :raises LabError: one line, when the file cannot be written.
    """
    directory = directory or cache_directory()
    path = directory / f"todos-{rows}.sqlite3"
    if not is_intact(path, rows):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            remove_abandoned(directory, now=time.time())
            _replace(path, rows)
        except (OSError, OperationalError) as error:
            raise LabError(explain_failure(path, error)) from None
    return path


def explain_failure(path: Path, error: OSError | OperationalError) -> str:
    """Return one line that says why the file could not be made, and the remedy."""
    cause = error.strerror if isinstance(error, OSError) else error.orig
    return f"cannot make {path}: {cause}; free some space there or set {OVERRIDE} to another directory"


def is_intact(path: Path, rows: int) -> bool:
    """Say whether the file is at our revision, complete and readable to its last page."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            counts = connection.execute("SELECT count(*), count(completed_at) FROM todo").fetchone()
    except sqlite3.DatabaseError:
        return False
    return revisions == [(REVISION,)] and counts == (rows, rows // 2)


def _replace(path: Path, rows: int) -> None:
    descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=path.parent)
    temporary = Path(name)
    try:
        migrate(temporary, rows)
        os.fsync(descriptor)
        temporary.replace(path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def migrate(path: Path, rows: int) -> None:
    """Run ``alembic upgrade head`` on a SQLite file that nobody else uses."""
    engine = sa.create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    with engine.connect() as connection:
        # The file counts only once it is whole, so it needs no journal and no flush of its own.
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        command.upgrade(configure(connection, rows), "head")
        connection.commit()


def configure(connection: Connection, rows: int) -> Config:
    """Return Alembic's configuration for the lab's migrations."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, rows=rows)
    return config


def remove_abandoned(directory: Path, now: float) -> None:
    """Remove what a killed lab left behind; a lab that still writes is younger than ten minutes."""
    for path in directory.glob(f"{_PREFIX}*"):
        try:
            if now - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
        except FileNotFoundError:  # another lab was faster
            continue
