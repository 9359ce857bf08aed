"""asyncpg's connection whose transactions say READ WRITE, which asyncpg has no option for."""

from __future__ import annotations

from functools import cache
from typing import Any

ISOLATION = {
    None: "",
    "read_committed": " ISOLATION LEVEL READ COMMITTED",
    "read_uncommitted": " ISOLATION LEVEL READ UNCOMMITTED",
    "repeatable_read": " ISOLATION LEVEL REPEATABLE READ",
    "serializable": " ISOLATION LEVEL SERIALIZABLE",
}


@cache
def guarded_connection_class() -> type[Any]:
    """A class for asyncpg's ``connection_class``; with ``begins_read_write`` unset it is asyncpg's own."""
    from asyncpg import Connection  # type: ignore[import-untyped]
    from asyncpg.transaction import Transaction, TransactionState  # type: ignore[import-untyped]

    class ReadWriteTransaction(Transaction):  # type: ignore[misc]
        """As asyncpg's; the outermost one begins with READ WRITE."""

        async def start(self) -> None:
            connection = self._connection
            if connection._top_xact is not None or connection.is_in_transaction() or self._readonly:
                await super().start()  # a savepoint, a READ ONLY transaction, or asyncpg's own refusal
                return
            connection._top_xact = self
            deferrable = " DEFERRABLE" if self._deferrable else ""
            try:
                await connection.execute(f"BEGIN{ISOLATION[self._isolation]} READ WRITE{deferrable};")
            except BaseException:
                self._state = TransactionState.FAILED
                raise
            self._state = TransactionState.STARTED

    class GuardedConnection(Connection):  # type: ignore[misc]
        """As asyncpg's, with transactions that may write although the session's default is to read."""

        begins_read_write = False

        def transaction(
            self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
        ) -> Transaction:
            if not self.begins_read_write:
                return super().transaction(isolation=isolation, readonly=readonly, deferrable=deferrable)
            self._check_open()
            return ReadWriteTransaction(self, isolation, readonly, deferrable)

        def get_reset_query(self) -> str:
            # For ``reset``, which only somebody calls who has the connection itself, and may write as he likes.
            return f"{super().get_reset_query()}\nSET default_transaction_read_only = off;"

    return GuardedConnection
