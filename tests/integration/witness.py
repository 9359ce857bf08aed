"""What a database says of an application's connections and rows, asked over a connection of the witness's own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from typing import Any, Protocol

import psycopg
from sqlalchemy import URL

TABLE = "CREATE TABLE IF NOT EXISTS deed (id TEXT NOT NULL, note TEXT NOT NULL)"
BUSY = ("active", "idle in transaction", "idle in transaction (aborted)")


class Witness(Protocol):
    """One application's connections and the table ``deed``, seen from outside."""

    application: str

    def states(self) -> Counter[str]:
        """How many connections are open, by the server's name of their state."""
        ...

    def count(self, deed: str) -> int:
        """How many rows of this name are committed."""
        ...

    def all_deeds(self) -> Counter[str]:
        """How often each row is there."""
        ...

    def close(self) -> None: ...


class PostgresWitness:
    """Asks ``pg_stat_activity``."""

    def __init__(self, url: URL, application: str) -> None:
        self.application = application
        self.url = url
        self._connection = self._connect()
        # Several witnesses start at once, and IF NOT EXISTS does not exclude them.
        self._connection.execute("SELECT pg_advisory_lock(1)")
        self._connection.execute(TABLE)
        self._connection.execute("SELECT pg_advisory_unlock(1)")

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url.set(drivername="postgresql").render_as_string(False), autocommit=True)

    def ask(self, statement: str, *args: Any) -> list[Any]:
        """Rows; connects again after the server was restarted."""
        try:
            cursor = self._connection.execute(statement, args or None)  # type: ignore[call-overload]
        except psycopg.OperationalError:
            self._connection.close()
            self._connection = self._connect()
            cursor = self._connection.execute(statement, args or None)  # type: ignore[call-overload]
        return list(cursor.fetchall()) if cursor.description else []

    def states(self) -> Counter[str]:
        """How many backends there are, by state."""
        rows = self.ask(
            "SELECT coalesce(state, 'starting'), count(*) FROM pg_stat_activity WHERE application_name = %s GROUP BY 1",
            self.application,
        )
        return Counter(dict(rows))

    def count(self, deed: str) -> int:
        """How many rows of this name are committed."""
        return int(self.ask("SELECT count(*) FROM deed WHERE id = %s", deed)[0][0])

    def all_deeds(self) -> Counter[str]:
        """How often each row is there."""
        return Counter(dict(self.ask("SELECT id, count(*) FROM deed GROUP BY 1")))

    def kill(self, state: str | None = None) -> int:
        """Terminate the application's backends, all or those in one state; returns how many."""
        rows = self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = %s AND (%s::text IS NULL OR state = %s)",
            self.application,
            state,
            state,
        )
        return len(rows)

    def kill_one(self, query_like: str = "%") -> int:
        """Terminate one backend at random, among those whose last statement looks like this; returns how many."""
        rows = self.ask(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE application_name = %s AND query LIKE %s ORDER BY random() LIMIT 1) AS victim",
            self.application,
            query_like,
        )
        return len(rows)

    def close(self) -> None:
        """Go home."""
        self._connection.close()


class SqliteWitness:
    """Counts aiosqlite's threads, of which each connection has one."""

    def __init__(self, path: str, application: str) -> None:
        self.application = application
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute(TABLE)
        self._before = set(_worker_threads())

    def states(self) -> Counter[str]:
        """How many connections are open; SQLite does not say what they do."""
        return Counter({"idle": len([thread for thread in _worker_threads() if thread not in self._before])})

    def count(self, deed: str) -> int:
        """How many rows of this name are committed."""
        return int(self._connection.execute("SELECT count(*) FROM deed WHERE id = ?", (deed,)).fetchone()[0])

    def all_deeds(self) -> Counter[str]:
        """How often each row is there."""
        return Counter(dict(self._connection.execute("SELECT id, count(*) FROM deed GROUP BY 1").fetchall()))

    def close(self) -> None:
        """Go home."""
        self._connection.close()


def _worker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_connection_worker_thread" in thread.name]


def becomes(condition: Any, seconds: float = 5.0) -> bool:
    """Whether a condition becomes true in time; for what a server does in its own time."""
    deadline_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.002)
    return True


async def async_becomes(condition: Any, seconds: float = 5.0) -> bool:
    """As ``becomes``, while the event loop goes on."""
    deadline_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(0.005)
    return True
