"""psycopg, sync and async, and asyncpg."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy.util import await_only

from headgate.drivers.asyncpg_guard import guarded_connection_class
from headgate.drivers.cancel_request import CancelRequest
from headgate.drivers.protocol import Cancel, Driver, Facts, IdleWatch, ReadOnlyDefault
from headgate.drivers.sockets import has_input
from headgate.statements import Family
from headgate.waiters import running_loop

# Values of libpq's PGTransactionStatusType and ConnStatusType that matter here.
PQTRANS_IDLE = 0
CONNECTION_OK = 0

QUESTIONS = """
SELECT pg_catalog.current_setting('default_transaction_isolation'),
  setting = 'on', source, reset_val = 'on', pg_catalog.pg_is_in_recovery(),
  coalesce((SELECT lower(split_part(setting, '=', 2)) IN ('on', 'true', 'yes', '1')
   FROM pg_catalog.pg_db_role_setting AS given
     LEFT JOIN pg_catalog.pg_database AS base ON base.oid = given.setdatabase
     LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = given.setrole,
     unnest(given.setconfig) AS setting
   WHERE (given.setdatabase = 0 OR base.datname = current_database())
     AND (given.setrole = 0 OR role.rolname = session_user)
     AND setting LIKE 'default_transaction_read_only=%'
   ORDER BY given.setrole = 0, given.setdatabase = 0 LIMIT 1), false),
  (SELECT json_agg(name)::text FROM (
     SELECT lower(typname) AS name FROM pg_catalog.pg_type AS type
     GROUP BY 1 HAVING bool_and(typtype = 'e' AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_cast WHERE casttarget IN (type.oid, type.typarray)
         OR castsource IN (type.oid, type.typarray)))) AS enums)
FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'
"""
"""Asked once of each connection. The guard hides a role's own default, and enums are types of the application's."""

ISOLATION_QUESTION = "SHOW default_transaction_isolation"
SOURCE_QUESTION = "SELECT source FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'"

GUARD = "default_transaction_read_only"
PSYCOPG_GUARD = "--Default_Transaction_Read_Only=on"
ASYNCPG_GUARD = "On"
"""Spelled as nobody else does: SQLAlchemy 2.0 keeps what was added, and an application may ask for the same itself."""
READ_ONLY_VIOLATION = "25006"
OPERATOR_INTERVENTION = "57"
"""Class of SQLSTATEs: the server is going down, or somebody has cancelled the question."""
QUERY_CANCELED = "57014"

CANCEL_TIMEOUT_S = 1.0
"""How long a server may take to accept a cancel request; it takes a few milliseconds."""

MAX_LAST_WORDS = 8
"""How many packets of an idle server are read in search of the end of its connection."""

LAST_WORDS_MS = 20
"""How long the end may take to follow a farewell; it takes less than one."""

WEAK_ISOLATION = frozenset({None, "autocommit", "read_committed", "read_uncommitted"})
WEAK_DEFAULTS = frozenset({"read committed", "read uncommitted"})
PSYCOPG_READ_COMMITTED = 2  # psycopg.IsolationLevel: READ_UNCOMMITTED is 1, REPEATABLE_READ 3


class _Postgresql:
    """What psycopg and asyncpg have in common."""

    family: Family = "postgresql"
    buffers = True
    needs_finish = False

    def watch_idle(self, dbapi: Any) -> IdleWatch:
        if not hasattr(select, "poll"):  # Windows
            return lambda: True
        poll = select.poll()
        poll.register(self.descriptor(dbapi), select.POLLIN)
        return partial(poll.poll, 0)

    def descriptor(self, dbapi: Any) -> int:
        raise NotImplementedError

    def watch_end(self, dbapi: Any) -> int | None:
        try:
            return os.dup(self.descriptor(dbapi))
        except Exception:  # it has ended already, as OSError, AttributeError or the driver's own error tell
            return None

    def set_guard(self, dbapi: Any, *, on: bool) -> None:
        # Not SET to on: only what came with the connection's start is told apart from the application's own.
        _ask(self, dbapi, f"RESET {GUARD}" if on else f"SET {GUARD} = off")  # type: ignore[arg-type]

    def has_set_default(self, dbapi: Any) -> bool:
        return bool(_ask(self, dbapi, SOURCE_QUESTION)[0] == "session")  # type: ignore[arg-type]

    def was_never_sent(self, error: Exception) -> bool:
        return False

    def has_lost_transaction(self, dbapi: Any) -> bool:
        return False

    def is_read_only_violation(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) == READ_ONLY_VIOLATION

    def finish(self, cursor: Any) -> None:
        pass

    def was_cancelled(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) == QUERY_CANCELED

    def cut(self, dbapi: Any) -> bool:
        with suppress(Exception):  # it has ended already, as in ``watch_end``
            twin = socket.socket(fileno=os.dup(self.descriptor(dbapi)))
            with twin:
                twin.shutdown(socket.SHUT_RDWR)
        return True


class Psycopg(_Postgresql):
    def descriptor(self, dbapi: Any) -> int:
        return int(self.raw(dbapi).pgconn.socket)

    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi

    # The four that are asked once a statement or more do without ``raw``, here and in the async twin.

    def is_idle(self, dbapi: Any) -> bool:
        return bool(dbapi.pgconn.transaction_status == PQTRANS_IDLE)

    def is_dead(self, dbapi: Any) -> bool:
        return bool(dbapi.pgconn.status != CONNECTION_OK)

    def has_ended(self, dbapi: Any) -> bool:
        pgconn = self.raw(dbapi).pgconn
        for has_spoken in (False, *[True] * MAX_LAST_WORDS):
            if pgconn.status != CONNECTION_OK or not self.says_more(pgconn.socket, has_spoken=has_spoken):
                break
            with suppress(Exception):  # psycopg may be absent here; libpq's status tells the same
                pgconn.consume_input()
        return bool(pgconn.status != CONNECTION_OK)

    def says_more(self, descriptor: int, *, has_spoken: bool) -> bool:
        # An idle server has nothing to say: what can be read is a notice, or a farewell and soon after the end.
        return has_input(descriptor, LAST_WORDS_MS if has_spoken else 0)

    def is_autocommit(self, dbapi: Any) -> bool:
        return bool(self.raw(dbapi).autocommit)

    def enter_autocommit(self, dbapi: Any) -> None:
        # The public setter takes a lock and, when async, a switch of greenlets: more than the whole statement.
        dbapi._autocommit = True

    def leave_autocommit(self, dbapi: Any) -> None:
        dbapi._autocommit = False

    def learn(self, dbapi: Any) -> Facts:
        raw = self.raw(dbapi)
        if not (hasattr(raw, "_autocommit") and hasattr(raw, "_prepared")):
            return Facts(can_lease=False)  # a psycopg we do not know
        if (raw.isolation_level or 0) > PSYCOPG_READ_COMMITTED or not self.is_idle(dbapi):
            return Facts(can_lease=False)
        return _ask_server(self, dbapi)

    def begin_read_write(self, dbapi: Any) -> None:
        if self.raw(dbapi).read_only is None:
            self._begin_with(dbapi, read_only=False)

    def begin_as_given(self, dbapi: Any) -> None:
        if self.raw(dbapi).read_only is False:
            self._begin_with(dbapi, read_only=None)

    def reads_by_default(self, dbapi: Any) -> bool:
        return bool(self.raw(dbapi).pgconn.parameter_status(GUARD.encode()) == b"on")

    def abort(self, dbapi: Any) -> int | None:
        pgconn = self.raw(dbapi).pgconn
        descriptor = os.dup(pgconn.socket)
        pgconn.finish()
        return descriptor

    def is_stale_plan(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) == "0A000" and "cached plan" in str(error)

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        self.raw(dbapi)._prepared.clear()

    def ask_for_guard(self, options: dict[str, Any]) -> bool:
        # libpq takes an explicit ``options`` instead of the environment's, and looks into a service's own.
        given = str(options.get("options") or os.environ.get("PGOPTIONS") or "")
        if PSYCOPG_GUARD in given:
            return True
        if _names_guard(given) or _wants_a_writer(options) or "service" in options or "PGSERVICE" in os.environ:
            return False
        options["options"] = f"{given} {PSYCOPG_GUARD}".strip()
        return True

    def drop_guard(self, options: dict[str, Any]) -> None:
        if PSYCOPG_GUARD in str(options.get("options")):
            options["options"] = options["options"].replace(PSYCOPG_GUARD, "").strip()

    def raise_guard(self, dbapi: Any) -> bool:
        status = self.raw(dbapi).pgconn.parameter_status
        if not hasattr(self.raw(dbapi), "_begin_statement"):
            return False  # a psycopg we do not know
        if not self.reads_by_default(dbapi) or status(b"in_hot_standby") != b"off":
            return False
        self.begin_read_write(dbapi)
        return True

    def _begin_with(self, dbapi: Any, *, read_only: bool | None) -> None:
        # As its public setter does, which when async takes a lock and a switch: a place to be cancelled at.
        raw = self.raw(dbapi)
        raw._read_only = read_only
        raw._begin_statement = b""

    def canceller(self, dbapi: Any) -> Cancel:
        from psycopg import capabilities

        pgconn = self.raw(dbapi).pgconn
        if not capabilities.has_cancel_safe():
            old: Cancel = pgconn.get_cancel().cancel
            return old
        return partial(_cancel_by_libpq, pgconn.cancel_conn(), threading.Lock())


def _cancel_by_libpq(request: Any, lock: threading.Lock) -> None:
    from psycopg.generators import cancel
    from psycopg.waiting import wait_conn

    with lock:  # one after the other
        request.reset()
        request.start()
        wait_conn(cancel(request), timeout=CANCEL_TIMEOUT_S)


class PsycopgAsync(Psycopg):
    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi._connection

    def is_idle(self, dbapi: Any) -> bool:
        return bool(dbapi._connection.pgconn.transaction_status == PQTRANS_IDLE)

    def is_dead(self, dbapi: Any) -> bool:
        return bool(dbapi._connection.pgconn.status != CONNECTION_OK)

    def enter_autocommit(self, dbapi: Any) -> None:
        dbapi._connection._autocommit = True

    def leave_autocommit(self, dbapi: Any) -> None:
        dbapi._connection._autocommit = False

    def says_more(self, descriptor: int, *, has_spoken: bool) -> bool:
        return _says_more(descriptor, has_spoken=has_spoken)


class Asyncpg(_Postgresql):
    def descriptor(self, dbapi: Any) -> int:
        return _descriptor(dbapi._connection)

    def is_idle(self, dbapi: Any) -> bool:
        return dbapi._transaction is None and not dbapi._connection.is_in_transaction()

    def is_dead(self, dbapi: Any) -> bool:
        return bool(dbapi._connection.is_closed())

    def has_ended(self, dbapi: Any) -> bool:
        raw = dbapi._connection
        for has_spoken in (False, *[True] * MAX_LAST_WORDS):
            if raw.is_closed() or not _says_more(_descriptor(raw), has_spoken=has_spoken):
                break
            # The loop has not come round yet to read what the server said while the connection was idle.
            await_only(asyncio.sleep(0))
        return bool(raw.is_closed())

    def is_autocommit(self, dbapi: Any) -> bool:
        return bool(dbapi.autocommit)

    def enter_autocommit(self, dbapi: Any) -> None:
        dbapi.isolation_level = "autocommit"

    def leave_autocommit(self, dbapi: Any) -> None:
        dbapi.isolation_level = dbapi._isolation_setting

    def learn(self, dbapi: Any) -> Facts:
        if dbapi._isolation_setting not in WEAK_ISOLATION or not self.is_idle(dbapi):
            return Facts(can_lease=False)
        return _ask_server(self, dbapi)

    def begin_read_write(self, dbapi: Any) -> None:
        dbapi._connection.begins_read_write = True

    def begin_as_given(self, dbapi: Any) -> None:
        dbapi._connection.begins_read_write = False

    def reads_by_default(self, dbapi: Any) -> bool:
        return getattr(dbapi._connection.get_settings(), GUARD, None) == "on"

    def abort(self, dbapi: Any) -> int | None:
        # Its loop may be another thread's, stopped or closed: the server is told past it.
        raw = dbapi._connection
        try:
            twin = socket.socket(fileno=os.dup(_descriptor(raw)))
        except (OSError, AttributeError):  # it has ended already, and its loop has seen that
            return None
        with suppress(OSError):
            twin.shutdown(socket.SHUT_WR)
        if running_loop() is raw._loop:
            raw.terminate()
        else:
            with suppress(RuntimeError):  # the loop is closed, so it has nothing to clean up
                raw._loop.call_soon_threadsafe(raw.terminate)
        return twin.detach()

    def has_lost_transaction(self, dbapi: Any) -> bool:
        return dbapi._transaction is not None and not dbapi._connection.is_in_transaction()

    def was_never_sent(self, error: Exception) -> bool:
        # The server's farewell has been read, its end not yet: asyncpg refuses to begin anything.
        return "cannot switch to state" in str(error)

    def is_stale_plan(self, error: Exception) -> bool:
        return type(error).__name__ == "InvalidCachedStatementError"

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        cursor._invalidate_schema_cache_asof = time.time()  # SQLAlchemy compares it with its own time.time()

    def ask_for_guard(self, options: dict[str, Any]) -> bool:
        settings = options.get("server_settings") or {}
        if settings.get(GUARD) == ASYNCPG_GUARD:
            return True
        own_class = options.get("connection_class", guarded_connection_class())
        if _names_guard(str(settings)) or _wants_a_writer(options) or own_class is not guarded_connection_class():
            return False
        options["server_settings"] = {**settings, GUARD: ASYNCPG_GUARD}
        options["connection_class"] = guarded_connection_class()
        return True

    def drop_guard(self, options: dict[str, Any]) -> None:
        settings = options.get("server_settings") or {}
        if settings.get(GUARD) == ASYNCPG_GUARD:
            options["server_settings"] = {name: value for name, value in settings.items() if name != GUARD}
        if options.get("connection_class") is guarded_connection_class():
            del options["connection_class"]

    def raise_guard(self, dbapi: Any) -> bool:
        # Not isinstance: to asyncpg's metaclass every connection is an instance of every class of connections.
        if not issubclass(type(dbapi._connection), guarded_connection_class()):
            return False  # another ``do_connect`` listener has asked for a class of its own
        if not self.reads_by_default(dbapi) or dbapi._connection.get_settings().in_hot_standby != "off":
            return False
        self.begin_read_write(dbapi)
        return True

    def canceller(self, dbapi: Any) -> Cancel:
        # Past asyncpg, whose own requests are tasks of the connection and end with it.
        raw = dbapi._connection
        try:
            params, protocol = raw._params, raw._protocol
            mode = params.sslmode.name  # "disable", if the application gave a context of its own
            tls = None if mode == "allow" else params.ssl
            request = CancelRequest(raw._addr, protocol.backend_pid, protocol.backend_secret, tls, mode != "prefer")
        except AttributeError:
            return _cannot_cancel
        return lambda: request.send(CANCEL_TIMEOUT_S)


def _cannot_cancel() -> None:
    raise NotImplementedError("an asyncpg we do not know")


def _names_guard(given: str) -> bool:
    return GUARD in given.lower().replace("-", "_")


def _wants_a_writer(options: dict[str, Any]) -> bool:
    """Whether the connect looks for a server by what it takes for a standby's sign, and would take the guard for it."""
    return "target_session_attrs" in options or "PGTARGETSESSIONATTRS" in os.environ


def _says_more(descriptor: int, *, has_spoken: bool) -> bool:
    """As ``Psycopg.says_more``, without holding up the loop."""
    for _ in range(LAST_WORDS_MS if has_spoken else 0):
        if has_input(descriptor):
            return True
        await_only(asyncio.sleep(0.001))
    return has_input(descriptor)


def _descriptor(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())


def _ask_server(driver: Driver, dbapi: Any) -> Facts:
    try:
        isolation, *default, enums = _ask(driver, dbapi, QUESTIONS)
    except Exception as error:  # a hardened catalog, or none: what speaks PostgreSQL's protocol need not be one
        if driver.is_dead(dbapi) or str(getattr(error, "sqlstate", "")).startswith(OPERATOR_INTERVENTION):
            raise
        return Facts(_is_weak_by_default(driver, dbapi))
    return Facts(isolation in WEAK_DEFAULTS, ReadOnlyDefault(*default), tuple(json.loads(enums or "[]")))


def _is_weak_by_default(driver: Driver, dbapi: Any) -> bool:
    try:
        return _ask(driver, dbapi, ISOLATION_QUESTION)[0] in WEAK_DEFAULTS
    except Exception:
        if driver.is_dead(dbapi):
            raise
        return False


def _ask(driver: Driver, dbapi: Any, statement: str) -> Any:
    """Run one statement outside of a transaction; its first row, if it has one."""
    flips = not driver.is_autocommit(dbapi)
    if flips:
        driver.enter_autocommit(dbapi)
    try:
        cursor = dbapi.cursor()
        try:
            cursor.execute(statement)
            return cursor.fetchone() if cursor.description else None
        finally:
            cursor.close()
    finally:
        if flips:
            driver.leave_autocommit(dbapi)
