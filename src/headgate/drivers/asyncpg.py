"""asyncpg, as SQLAlchemy adapts it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import Any

from sqlalchemy.util import await_only

from headgate.drivers.asyncpg_guard import guarded_connection_class
from headgate.drivers.cancel_request import CANCEL_TIMEOUT_S, CancelRequest
from headgate.drivers.postgresql import (
    GUARD,
    MAX_LAST_WORDS,
    Postgresql,
    ask_server,
    names_guard,
    says_more_async,
    wants_a_writer,
)
from headgate.drivers.protocol import Cancel, Facts
from headgate.waiters import running_loop

ASYNCPG_GUARD = "On"
WEAK_ISOLATION = frozenset({None, "autocommit", "read_committed", "read_uncommitted"})


class Asyncpg(Postgresql):
    def descriptor(self, dbapi: Any) -> int:
        return _descriptor(dbapi._connection)

    def is_idle(self, dbapi: Any) -> bool:
        return dbapi._transaction is None and not dbapi._connection.is_in_transaction()

    def is_dead(self, dbapi: Any) -> bool:
        return bool(dbapi._connection.is_closed())

    def has_ended(self, dbapi: Any) -> bool:
        raw = dbapi._connection
        for has_spoken in (False, *[True] * MAX_LAST_WORDS):
            if raw.is_closed() or not says_more_async(_descriptor(raw), has_spoken=has_spoken):
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
        return ask_server(self, dbapi)

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
        if names_guard(str(settings)) or wants_a_writer(options) or own_class is not guarded_connection_class():
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


def _descriptor(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())
