"""The databases: two schemas of one PostgreSQL, or two SQLite files; reset, looked at and written to from outside."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import psycopg
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

from .mends import LockedOutConnection
from .models import SEED, SEQUENCES, TABLES, Base

ArmName = Literal["stock", "leased"]
ARMS: tuple[ArmName, ArmName] = ("stock", "leased")

LOCK_TIMEOUT_MS = 15
"""Two sessions of one program share a thread: whoever would wait for the other gets an error instead, in both arms."""

TRUNCATE_AFTER = 10
"""Programs between two truncations: deleting is ten times as fast, but leaves dead rows behind."""

VANISH_TIMEOUT_S = 5.0
ROLE_PASSWORD = "differential"


@dataclass(frozen=True, slots=True)
class Sight:
    """What an independent connection sees of one arm: committed rows, and what its transactions hold."""

    content: str
    held: str
    writing: int
    """Transactions that have written."""
    aborted: frozenset[int] = field(default=frozenset(), compare=False)
    """Backends whose transaction has failed and waits for its rollback."""


class Ground(Protocol):
    """A database for each arm."""

    def url(self, arm: ArmName, role: str | None) -> URL: ...

    def connect_args(self, arm: ArmName, driver: str) -> dict[str, Any]: ...

    def reset(self) -> None:
        """Bring both arms' tables to the same known rows."""
        ...

    def look(self) -> dict[ArmName, Sight]: ...

    def write(self, arm: ArmName, statement: str) -> str:
        """Run and commit a statement of somebody else; what became of it."""
        ...

    def lock(self, arm: ArmName, table: str) -> str:
        """Try to lock out everybody, as DDL does, and let go again."""
        ...

    def await_vanishing(self, backends: Collection[int]) -> None:
        """Wait until the server has let go of connections that were closed without a farewell."""
        ...

    def connected(self, arm: ArmName) -> list[int]:
        """The backends that serve an arm."""
        ...

    def left_open(self) -> list[str]:
        """The transactions that are still open."""
        ...

    def renew(self) -> None:
        """Get rid of whatever a failed program may have left."""
        ...

    def close(self) -> None: ...


def application(arm: ArmName) -> str:
    """The arm's name in ``pg_stat_activity``."""
    return f"differential_{arm}"


BACKENDS = f"""
WITH backends AS MATERIALIZED (
    SELECT arm, count(backend_xid) AS writing,
        array_agg(pid) FILTER (WHERE state = 'idle in transaction (aborted)') AS aborted
    FROM unnest(ARRAY['{application("stock")}', '{application("leased")}']) AS arm
    LEFT JOIN pg_stat_get_activity(NULL) ON application_name = arm
    GROUP BY arm
)
"""
"""What each arm's backends do; the view ``pg_stat_activity`` would cost more than all the rest."""


class PostgresGround:
    """Schemas ``stock`` and ``leased`` of one database; connect arguments say which."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._roles: dict[tuple[ArmName, str], str] = {}
        self._resets = 0
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        # A lock that a program has left behind is an error of the next reset, not a hang.
        self._observer = psycopg.connect(plain, autocommit=True, prepare_threshold=None, options="-clock_timeout=5s")
        self._writers = {arm: psycopg.connect(plain, autocommit=True, options=self._options(arm)) for arm in ARMS}
        for arm in ARMS:
            self._build(arm)
        self._reset = "; ".join(self._reset_arm(arm) for arm in ARMS)
        self._glance = f"{BACKENDS} {' UNION ALL '.join(self._glance_at(arm) for arm in ARMS)}"
        self._read = f"SELECT pg_current_snapshot()::text, {', '.join(self._read_rows(arm) for arm in ARMS)}"
        self._snapshot = ""
        self._rows: dict[ArmName, str] = {}

    def _build(self, arm: ArmName) -> None:
        self._observer.execute(f"DROP SCHEMA IF EXISTS {arm} CASCADE; CREATE SCHEMA {arm}")  # type: ignore[call-overload]
        engine = create_engine(
            self._url.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={"options": self._options(arm)},
        )
        Base.metadata.create_all(engine)
        for table in Base.metadata.tables:  # its locks would be taken for those of one arm
            self._writers[arm].execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")  # type: ignore[call-overload]
        self._writers[arm].execute(
            "CREATE FUNCTION note_it(what text) RETURNS int LANGUAGE sql AS "
            "$$ INSERT INTO audit (note) VALUES (what) RETURNING 1 $$; "
            "CREATE VIEW telling AS SELECT note_it('told') AS told; "
            "CREATE SEQUENCE ticket"
        )

    @staticmethod
    def _options(arm: ArmName) -> str:
        return f"-csearch_path={arm} -clock_timeout={LOCK_TIMEOUT_MS} -csynchronous_commit=off"

    @staticmethod
    def _reset_arm(arm: ArmName) -> str:
        deletes = [f"DELETE FROM {table}" for table in ("book_tag", "book", "author", "tag", "audit")]
        sequences = [f"SELECT setval('{sequence}', 10, false)" for sequence in (*SEQUENCES, "ticket")]
        return "; ".join([f"SET LOCAL search_path = {arm}", *deletes, *SEED, *sequences])

    @staticmethod
    def _glance_at(arm: ArmName) -> str:
        # Neither sequences nor locks belong to a snapshot.
        sequences = [f"coalesce(pg_sequence_last_value('{arm}.{name}'), 0)" for name in (*SEQUENCES, "ticket")]
        # The lock is let go of when the statement ends.
        held = f"pg_try_advisory_xact_lock(hashtext('{arm}'), 1)::text, writing"
        return (
            f"SELECT pg_current_snapshot()::text, concat_ws(' ', {', '.join(sequences)}), {held}, aborted "
            f"FROM backends WHERE arm = '{application(arm)}'"
        )

    @staticmethod
    def _read_rows(arm: ArmName) -> str:
        tables = [f"(SELECT string_agg(t::text, ';' ORDER BY t::text) FROM {arm}.{table} t)" for table in TABLES]
        return f"concat_ws(' | ', {', '.join(tables)})"

    def url(self, arm: ArmName, role: str | None) -> URL:
        """Where to connect; ``role`` is the default isolation of the role to connect as."""
        if role is None:
            return self._url
        name = self._roles.get((arm, role)) or self._make_role(arm, role)
        return self._url.set(username=name, password=ROLE_PASSWORD)

    def _make_role(self, arm: ArmName, isolation: str) -> str:
        name = f"{self._url.database}_{arm}_{isolation.replace(' ', '_').lower()}"
        self._observer.execute(
            f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{ROLE_PASSWORD}'; "  # type: ignore[call-overload]
            f"ALTER ROLE {name} SET default_transaction_isolation = '{isolation.lower()}'"
        )
        self._roles[arm, isolation] = name
        return name

    def connect_args(self, arm: ArmName, driver: str) -> dict[str, Any]:
        """The arm's schema and name, in the words of the driver."""
        if driver == "asyncpg":
            return {
                "server_settings": {
                    "search_path": arm,
                    "lock_timeout": str(LOCK_TIMEOUT_MS),
                    "synchronous_commit": "off",
                    "application_name": application(arm),
                }
            }
        return {"options": self._options(arm), "application_name": application(arm)}

    def reset(self) -> None:
        """Bring both schemas to the same known rows."""
        if self._resets % TRUNCATE_AFTER == 0:
            tables = ", ".join(f"{arm}.{table}" for arm in ARMS for table in TABLES)
            self._observer.execute(f"TRUNCATE {tables}")  # type: ignore[call-overload]
        self._resets += 1
        self._observer.execute(self._reset)  # type: ignore[call-overload]

    def look(self) -> dict[ArmName, Sight]:
        """Both arms at once; rows are read again only under a new snapshot, as the same one shows the same rows."""
        glances = self._observer.execute(self._glance, prepare=True).fetchall()  # type: ignore[call-overload]
        if glances[0][0] != self._snapshot:
            read = self._observer.execute(self._read, prepare=True).fetchone()  # type: ignore[call-overload]
            assert read is not None
            self._snapshot, self._rows = read[0], dict(zip(ARMS, read[1:], strict=True))
        return {
            arm: Sight(f"{self._rows[arm]} | {sequences}", held, writing, frozenset(aborted or ()))
            for arm, (_, sequences, held, writing, aborted) in zip(ARMS, glances, strict=True)
        }

    def write(self, arm: ArmName, statement: str) -> str:
        """Run and commit a statement of somebody else; what became of it."""
        try:
            cursor = self._writers[arm].execute(statement)  # type: ignore[call-overload]
        except psycopg.Error as error:
            self._writers[arm].rollback()  # of a failed lock's transaction
            return f"refused {error.sqlstate}: {error.diag.message_primary}"
        return f"{cursor.rowcount} rows"

    def lock(self, arm: ArmName, table: str) -> str:
        """Try to lock out everybody, as DDL does, and let go again."""
        return self.write(arm, f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT; ROLLBACK")

    def await_vanishing(self, backends: Collection[int]) -> None:
        """Wait until the server has let go of connections that were closed without a farewell."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
        deadline = time.monotonic() + VANISH_TIMEOUT_S
        while backends and self._observer.execute(query, [list(backends)]).fetchone() != (0,):
            assert time.monotonic() < deadline, "the server keeps connections that have been closed"
            time.sleep(0.001)

    def connected(self, arm: ArmName) -> list[int]:
        """The backends that serve an arm."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        return [row[0] for row in self._observer.execute(query, [application(arm)])]

    def left_open(self) -> list[str]:
        """The transactions that are still open: arm and state."""
        query = (
            "SELECT application_name || ': ' || state || ': ' || query FROM pg_stat_activity "
            "WHERE application_name = ANY(%s) AND state LIKE 'idle in transaction%%'"
        )
        arms = [application(arm) for arm in ARMS]
        return [row[0] for row in self._observer.execute(query, [arms])]

    def renew(self) -> None:
        """End the connections that nobody has closed."""
        query = "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = ANY(%s)"
        self._observer.execute(query, [[application(arm) for arm in ARMS]])

    def close(self) -> None:
        """Drop the roles, which belong to the whole server, and disconnect."""
        for arm in ARMS:
            self._observer.execute(f"DROP SCHEMA {arm} CASCADE")  # type: ignore[call-overload]
        for name in self._roles.values():
            self._observer.execute(f"DROP ROLE {name}")  # type: ignore[call-overload]
        for connection in (*self._writers.values(), self._observer):
            connection.close()


class SqliteGround:
    """One file an arm. Locks are tried, as SQLite has no view that shows them."""

    WRITING = "somebody writes"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made = 0
        self._make()

    def _make(self) -> None:
        self._made += 1
        self._files = {arm: self._directory / f"{arm}{self._made}.db" for arm in ARMS}
        for arm in ARMS:
            Base.metadata.create_all(create_engine(self.url(arm, None), poolclass=NullPool))
        self._others = {arm: self._connect(arm) for arm in ARMS}

    def _connect(self, arm: ArmName) -> sqlite3.Connection:
        connection = sqlite3.connect(self._files[arm], timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    def url(self, arm: ArmName, role: str | None) -> URL:
        """Where to connect; SQLite knows no roles."""
        return URL.create("sqlite", database=str(self._files[arm]))

    def connect_args(self, arm: ArmName, driver: str) -> dict[str, Any]:
        """A lock of the other session is an error at once: both share a thread."""
        return {"timeout": 0, "factory": LockedOutConnection}

    def reset(self) -> None:
        """Bring both files to the same known rows."""
        for other in self._others.values():
            deletes = [f"DELETE FROM {table}" for table in ("book_tag", "book", "author", "tag", "audit")]
            other.executescript(";".join(["BEGIN IMMEDIATE", *deletes, *SEED, "COMMIT"]))

    def look(self) -> dict[ArmName, Sight]:
        """Both arms, one after the other."""
        return {arm: self._look_at(other) for arm, other in self._others.items()}

    def _look_at(self, other: sqlite3.Connection) -> Sight:
        held = self._lock_state(other)
        return Sight(self._content(other), held, int(held == self.WRITING))

    @staticmethod
    def _content(other: sqlite3.Connection) -> str:
        try:
            return repr([other.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES])
        except sqlite3.OperationalError as error:
            return str(error)

    @staticmethod
    def _lock_state(other: sqlite3.Connection) -> str:
        for mode in ("EXCLUSIVE", "IMMEDIATE"):
            try:
                other.execute(f"BEGIN {mode}")
            except sqlite3.OperationalError:
                continue
            other.execute("ROLLBACK")
            return f"{mode.lower()} lock is free"
        return SqliteGround.WRITING

    def write(self, arm: ArmName, statement: str) -> str:
        """Run and commit a statement of somebody else; what became of it."""
        try:
            cursor = self._others[arm].execute(statement)
        except sqlite3.Error as error:
            return f"refused {error}"
        return f"{cursor.rowcount} rows"

    def lock(self, arm: ArmName, table: str) -> str:
        """Tell what a lock of the whole file would meet."""
        return self._lock_state(self._others[arm])

    def await_vanishing(self, backends: Collection[int]) -> None:
        """A file that is closed is closed."""

    def connected(self, arm: ArmName) -> list[int]:
        """SQLite has no backends."""
        return []

    def left_open(self) -> list[str]:
        """The transactions that are still open, read or write."""
        states = {arm: self._lock_state(other) for arm, other in self._others.items()}
        return [f"{arm}: {state}" for arm, state in states.items() if state != "exclusive lock is free"]

    def renew(self) -> None:
        """Go on in two other files."""
        self.close()
        self._make()

    def close(self) -> None:
        """Close both files."""
        for other in self._others.values():
            other.close()
