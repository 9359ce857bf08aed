"""psycopg, sync and async."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from typing import Any

from headgate.drivers.cancel_request import CANCEL_TIMEOUT_S
from headgate.drivers.postgresql import (
    GUARD,
    LAST_WORDS_MS,
    MAX_LAST_WORDS,
    Postgresql,
    ask_server,
    names_guard,
    says_more_async,
    wants_a_writer,
)
from headgate.drivers.protocol import Cancel, Facts
from headgate.drivers.sockets import has_input

# Values of libpq's PGTransactionStatusType and ConnStatusType that matter here.
PQTRANS_IDLE = 0
CONNECTION_OK = 0

PSYCOPG_GUARD = "--Default_Transaction_Read_Only=on"
PSYCOPG_READ_COMMITTED = 2  # psycopg.IsolationLevel: READ_UNCOMMITTED is 1, REPEATABLE_READ 3


class Psycopg(Postgresql):
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
        return ask_server(self, dbapi)

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
        if names_guard(given) or wants_a_writer(options) or "service" in options or "PGSERVICE" in os.environ:
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
        return says_more_async(descriptor, has_spoken=has_spoken)
