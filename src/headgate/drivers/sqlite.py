"""sqlite3 and aiosqlite."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy.util import await_only

from headgate.drivers.protocol import Cancel, Facts, IdleWatch
from headgate.statements import Family


class Sqlite:
    """Never flipped: in sqlite3's legacy mode a SELECT opens no transaction, and a flip inside one commits."""

    family: Family = "sqlite"
    buffers = False
    needs_finish = False

    def watch_idle(self, dbapi: Any) -> IdleWatch:
        return bool  # never: there is no server

    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi

    def is_idle(self, dbapi: Any) -> bool:
        return not self.raw(dbapi).in_transaction

    def is_dead(self, dbapi: Any) -> bool:
        try:
            self.is_idle(dbapi)
        except (sqlite3.ProgrammingError, ValueError):  # closed: by sqlite3's word, by aiosqlite's
            return True
        return False

    def has_ended(self, dbapi: Any) -> bool:
        return False

    def is_autocommit(self, dbapi: Any) -> bool:
        return False

    def enter_autocommit(self, dbapi: Any) -> None:
        pass

    def leave_autocommit(self, dbapi: Any) -> None:
        pass

    def learn(self, dbapi: Any) -> Facts:
        raw = self.raw(dbapi)
        legacy = getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1)
        return Facts(raw.isolation_level is not None and getattr(raw, "autocommit", legacy) == legacy)

    def begin_read_write(self, dbapi: Any) -> None:
        pass

    def begin_as_given(self, dbapi: Any) -> None:
        pass

    def ask_for_guard(self, options: dict[str, Any]) -> bool:
        return False

    def drop_guard(self, options: dict[str, Any]) -> None:
        pass

    def raise_guard(self, dbapi: Any) -> bool:
        return False

    def set_guard(self, dbapi: Any, *, on: bool) -> None:
        pass

    def reads_by_default(self, dbapi: Any) -> bool:
        return False

    def has_set_default(self, dbapi: Any) -> bool:
        return False

    def is_read_only_violation(self, error: Exception) -> bool:
        return False

    def has_lost_transaction(self, dbapi: Any) -> bool:
        return False

    def was_never_sent(self, error: Exception) -> bool:
        return False

    def finish(self, cursor: Any) -> None:
        pass

    def abort(self, dbapi: Any) -> int | None:
        self.raw(dbapi).close()
        return None

    def watch_end(self, dbapi: Any) -> int | None:
        return None

    def is_stale_plan(self, error: Exception) -> bool:
        return False

    def forget_plan(self, dbapi: Any, cursor: Any) -> None:
        pass

    def canceller(self, dbapi: Any) -> Cancel:
        interrupt: Cancel = self.raw(dbapi).interrupt
        return interrupt

    def was_cancelled(self, error: Exception) -> bool:
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT

    def cut(self, dbapi: Any) -> bool:
        return False


class Aiosqlite(Sqlite):
    buffers = True
    needs_finish = True

    @staticmethod
    def raw(dbapi: Any) -> Any:
        return dbapi._connection._conn

    def finish(self, cursor: Any) -> None:
        # SQLAlchemy closes the driver's cursor after execute has returned; by then another session may hold
        # the connection. 2.0.43 has closed it already.
        close = getattr(cursor, "_async_soft_close", None)
        if close is not None:
            await_only(close())

    def abort(self, dbapi: Any) -> int | None:
        dbapi._connection.stop()
        return None
