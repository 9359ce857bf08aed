"""Databases full of traps, and what a statement has changed in them."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from sqlalchemy import URL

from . import postgresql, sqlite


class PostgresWorld:
    """One raw connection in autocommit, with the guard on or off, to a database that is made anew when it was changed.

    Its search path begins with ``pg_temp``, as some statements create the session's schema for temporary tables then.
    """

    def __init__(self, url: URL, *, guard: bool, role: str = "") -> None:
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._guard = guard
        self._role = role
        self._heard: list[Any] = []
        self._make()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._connection.close()

    def run(self, statement: str, parameters: Any = None) -> tuple[str, dict[str, Any]]:
        """Execute a statement: SQLSTATE, and what it changed: name → (before, after)."""
        cursor = psycopg.ClientCursor(self._connection, row_factory=dict_row)
        merged = cursor.mogrify(statement, parameters) if parameters else statement
        held, code = self._held, "00000"
        try:
            # One message, so one transaction: what is held until its end can still be seen.
            cursor.execute(f"{merged}\n;{postgresql.HELD}")  # type: ignore[call-overload]
            while cursor.nextset():
                pass
            held = cursor.fetchone()
        except psycopg.Error as error:
            code = error.sqlstate or "unknown"
        changes = {**_differences(self._held, held), **_differences(self._left, self._ask(postgresql.LEFT))}
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            changes["transaction"] = (None, self._connection.info.transaction_status)
        if self._heard:
            changes["heard"] = (None, self._heard)
        if changes:
            self._make()
        return code, changes

    def _make(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()
        with psycopg.connect(self._dsn, autocommit=True) as maker:
            if not maker.execute("SELECT 1 FROM pg_roles WHERE rolname = 'reader'").fetchone():
                maker.execute("CREATE ROLE reader")
            maker.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
            maker.execute(postgresql.WORLD)
        self._heard = []
        self._connection = psycopg.connect(self._dsn, autocommit=True)
        self._connection.prepare_threshold = None
        self._connection.add_notify_handler(self._heard.append)
        for setting in (
            "LOAD 'plpgsql'",  # its settings are there from now on
            "LISTEN news",
            "SET search_path = pg_temp, public",
            "SET statement_timeout = '2s'",
            f"SET default_transaction_read_only = {'on' if self._guard else 'off'}",
            f"SET ROLE {self._role or 'none'}",
        ):
            self._connection.execute(setting)
        self._held, self._left = self._ask(postgresql.HELD), self._ask(postgresql.LEFT)
        assert "state" not in {**self._held, **self._left}, "a state that cannot be asked for would never differ"

    def _ask(self, query: LiteralString) -> dict[str, Any]:
        try:
            return self._connection.cursor(row_factory=dict_row).execute(query).fetchone() or {}
        except psycopg.Error as error:
            return {"state": str(error)}


def _differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: (before.get(name), after.get(name)) for name in after if before.get(name) != after[name]}


class SqliteWorld:
    """One raw connection in autocommit to a database in memory that is made anew when it was changed."""

    READS: Final = frozenset(
        {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
    )

    def __init__(self) -> None:
        self._make()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._connection.close()

    def run(self, statement: str, parameters: Any = None) -> tuple[str, dict[str, Any]]:
        """Execute a statement: the kind of its error, and what it changed: name → (before, after)."""
        self._asked.clear()
        code = "00000"
        try:
            self._connection.execute(statement, parameters or ()).fetchall()
        except sqlite3.Error as error:
            code = type(error).__name__
        asked = set(self._asked) - self.READS
        changes = _differences(self._left, self._state())
        if asked:
            changes["actions"] = (None, asked)
        if changes:
            self._make()
        return code, changes

    def _make(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()
        self._asked: list[int] = []
        self._connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
        self._connection.executescript(sqlite.WORLD)
        for name in ("f", "over"):
            self._connection.create_function(name, 1, self._write)
        self._left = self._state()
        self._connection.set_authorizer(self._authorize)

    def _write(self, value: object) -> int:
        self._connection.execute("INSERT INTO log VALUES ('f')")
        return 1

    def _authorize(self, action: int, table: str | None, *details: object) -> int:
        if (action, table) != (sqlite3.SQLITE_UPDATE, "sqlite_master"):  # how a table-valued function says its columns
            self._asked.append(action)
        return sqlite3.SQLITE_OK

    def _state(self) -> dict[str, Any]:
        connection = self._connection
        return {
            "contents": connection.serialize(),
            "changes": connection.total_changes,
            "transaction": connection.in_transaction,
        }
