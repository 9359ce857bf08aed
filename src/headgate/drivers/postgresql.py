"""PostgreSQL's drivers: what they have in common, and the questions that a new connection is asked."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy.util import await_only

from headgate.drivers.protocol import Driver, Facts, IdleWatch, ReadOnlyDefault
from headgate.drivers.sockets import has_input
from headgate.statements import Family

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
"""What a connect asks for, in a spelling of the driver's that nobody else uses.

SQLAlchemy 2.0 keeps what was added, and an application may ask for the same itself.
"""

READ_ONLY_VIOLATION = "25006"
OPERATOR_INTERVENTION = "57"
"""Class of SQLSTATEs: the server is going down, or somebody has cancelled the question."""
QUERY_CANCELED = "57014"

MAX_LAST_WORDS = 8
"""How many packets of an idle server are read in search of the end of its connection."""

LAST_WORDS_MS = 20
"""How long the end may take to follow a farewell; it takes less than one."""

WEAK_DEFAULTS = frozenset({"read committed", "read uncommitted"})


class Postgresql:
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


def names_guard(given: str) -> bool:
    return GUARD in given.lower().replace("-", "_")


def wants_a_writer(options: dict[str, Any]) -> bool:
    """Whether the connect looks for a server by what it takes for a standby's sign, and would take the guard for it."""
    return "target_session_attrs" in options or "PGTARGETSESSIONATTRS" in os.environ


def says_more_async(descriptor: int, *, has_spoken: bool) -> bool:
    """As ``Psycopg.says_more``, without holding up the loop."""
    for _ in range(LAST_WORDS_MS if has_spoken else 0):
        if has_input(descriptor):
            return True
        await_only(asyncio.sleep(0.001))
    return has_input(descriptor)


def ask_server(driver: Driver, dbapi: Any) -> Facts:
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
