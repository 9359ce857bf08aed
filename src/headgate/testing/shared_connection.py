"""The one connection of a ``rolled_back`` block: all of it is one transaction of the server, never committed.

A session's writes stand behind a savepoint from its first write to its commit, which releases the savepoint, or its
rollback, which goes back to it. A proved read needs none, so any number of sessions may read, while savepoints, which
are a stack, allow one writer at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from sqlalchemy.pool import Pool, StaticPool
from sqlalchemy.util import await_only, greenlet_spawn

from headgate.drivers import driver_for
from headgate.errors import LeaseError
from headgate.lease import VirtualConnection
from headgate.sites import calling_site
from headgate.statements import StatementClass, StatementProof
from headgate.testing import errors
from headgate.testing.turns import Turns, Work

ResultT = TypeVar("ResultT")

BLOCK = "headgate_block"
WORK = "headgate_work"
READ = "headgate_read"
"""Savepoints: around the whole block, around one session's writes, around one read."""

LOOP_FREE = frozenset({"psycopg", "psycopg_async", "aiosqlite"})
"""Async drivers whose connections may go from one event loop to another; those of the others end with their loop."""


class SharedConnection:
    """The connection that all sessions of one engine share; opened by whoever needs it first.

    :param origin: the pool it comes from and goes back to; it is one lease there.
    :param outer: that of the block around this one; this one's transaction is then a savepoint of it.
    :param database: name of the database, for errors.
    :param max_wait_ns: how long a writer waits for another one of which nothing is heard.
    :param admit: called before each statement with this connection and whether it writes; may raise.
    """

    def __init__(
        self,
        origin: Pool,
        *,
        outer: SharedConnection | None,
        database: str,
        max_wait_ns: int,
        read_functions: frozenset[str],
        admit: Callable[[SharedConnection, bool], None],
    ) -> None:
        dialect: Any = origin._dialect
        self.dialect = dialect
        self.database = database
        self.is_async: bool = self.dialect.is_async
        self.is_autocommit = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.raw: Any = None
        self.dbapi: Any = None
        self._origin = origin
        self._outer = outer
        self._is_loop_bound = self.is_async and self.dialect.driver not in LOOP_FREE
        self._farewell: AsyncGenerator[None] | None = None
        self._proof = _proof_of(origin, read_functions)
        self._is_postgresql = self.dialect.name == "postgresql"
        self._admit = admit
        self._max_wait_ns = max_wait_ns
        self._turns = Turns(is_async=self.is_async, max_wait_ns=max_wait_ns, refuse=self._other_writer)
        self._is_reading = False
        self._begins = False
        self._has_written = False
        self._has_ended = False
        self._was_lost = False

    # open

    @property
    def is_open(self) -> bool:
        """True while a connection is held."""
        return self.raw is not None

    def open(self) -> None:
        """Take the connection from its pool and begin the transaction, unless that has been done.

        :raises LeaseError: the block has ended, or the connection belongs to another event loop.
        """
        with self._turns.alone(self):
            if self.raw is None:
                self._open()
        if self.loop is not None and self.loop is not asyncio.get_running_loop():
            raise errors.other_loop(self.database, self.dialect.driver)

    def _open(self) -> None:
        self._require_not_ended()
        raw: Any = self._origin.connect()
        try:
            if isinstance(raw, VirtualConnection):
                raw.pin()  # said before the escape that follows: ``on_pin`` need not report what is meant
            self.dbapi = raw.dbapi_connection
            self.is_autocommit = bool(self.dialect.detect_autocommit_setting(self.dbapi))
            self._begins = self._must_begin(raw)
            self._say(*(["BEGIN"] if self._begins else []), f"SAVEPOINT {BLOCK}")
            if self._is_loop_bound:
                self._bind_to_loop()
        except RuntimeError as error:
            raw.invalidate()
            if not self._is_loop_bound:
                raise
            raise errors.pool_of_other_loop(self.database, self.dialect.driver) from error
        except Exception:
            raw.close()
            raise
        except BaseException:
            raw.invalidate()
            raise
        self.raw = raw

    def _must_begin(self, raw: Any) -> bool:
        """Tell whether the driver would not begin by itself at the first statement."""
        if self.dialect.name != "sqlite" or self._outer is not None:
            return self.is_autocommit
        in_transaction = raw.driver_connection.in_transaction
        if in_transaction and isinstance(self._origin, StaticPool):
            raise errors.memory_is_in_use(self.database)
        return not in_transaction

    def _bind_to_loop(self) -> None:
        self.loop = asyncio.get_running_loop()
        if self._outer is None:
            self._farewell = self._leave_with_loop()
            await_only(self._farewell.__anext__())

    async def _leave_with_loop(self) -> AsyncGenerator[None]:
        # An event loop closes its asynchronous generators before it ends: the last moment to say goodbye on it.
        try:
            yield
        finally:
            self._was_lost = self._has_written and not self._has_ended
            await greenlet_spawn(self._give_back)

    # end

    def end(self) -> None:
        """Undo everything and give the connection back; nobody gets it any more.

        :raises LeaseError: something inside had ended the transaction, so not all of it could be undone.
        """
        self._has_ended = True
        self._give_back()

    async def end_async(self) -> None:
        """As ``end``, for an async driver; to be awaited on the connection's own event loop, if it is bound to one."""
        self._has_ended = True
        if self._farewell is not None:
            await self._farewell.aclose()
        else:
            await greenlet_spawn(self._give_back)

    def abandon(self) -> None:
        """End without a word to the server, which undoes everything as soon as it notices."""
        self._has_ended = True
        raw, self.raw = self.raw, None
        if raw is not None:
            raw.invalidate()

    def _give_back(self) -> None:
        with self._turns.alone(self):
            raw, self.raw = self.raw, None
            if raw is None:
                return
            error = self._find_end()
            is_gone = error is not None and self._is_gone(error)
            try:
                if not is_gone:
                    self._roll_back_all()
            finally:
                if is_gone or self._is_closed_at_end():
                    raw.invalidate()
                else:
                    raw.close()
        if error is not None and not is_gone:
            raise errors.was_committed(self.database) from error

    def _is_closed_at_end(self) -> bool:
        # The next test may run on another event loop, and in some versions a thread that aiosqlite has left keeps the
        # interpreter from ending. What lives in memory is the one connection.
        is_left = self._is_loop_bound or self.dialect.driver == "aiosqlite"
        return is_left and self._outer is None and not isinstance(self._origin, StaticPool)

    def _find_end(self) -> Exception | None:
        """Go back to where the block began; an error tells that its transaction has ended already."""
        self._turns.close_work()
        self._is_reading = False
        try:
            self._say(f"ROLLBACK TO SAVEPOINT {BLOCK}")
        except Exception as error:  # which one it is depends on the driver; the caller judges and raises
            return error
        return None

    def _is_gone(self, error: Exception) -> bool:
        # A LeaseError is that of a block around this one, which has ended or lost its connection.
        return isinstance(error, LeaseError) or bool(self.dialect.is_disconnect(error, self.dbapi, None))

    def _roll_back_all(self) -> None:
        if self._begins and self.dialect.name != "sqlite":
            self._say("ROLLBACK")  # the driver knows of no transaction
        else:
            self.dbapi.rollback()

    # statements

    def is_read(self, statement: object) -> bool:
        """True if the text proves that it only reads."""
        if self._proof is None or not isinstance(statement, str):
            return False
        return self._proof.classify(statement) is StatementClass.READ

    def read(self, work: Work, call: Callable[[], ResultT]) -> ResultT:
        """Run a proved read of a session that has written nothing.

        :raises LeaseError: the block has ended, or a session of the other kind wrote.
        """
        with self._ready(work, writes=False):
            return self._protected(call) if self._is_postgresql else call()

    def _protected(self, call: Callable[[], ResultT]) -> ResultT:
        """Keep an error from spoiling what the others have written, as it does on PostgreSQL."""
        self._is_reading = True
        self._say(f"SAVEPOINT {READ}")
        try:
            result = call()
        except Exception:
            self._undo_reading()
            raise
        try:
            self._say(f"RELEASE SAVEPOINT {READ}")
        finally:
            self._is_reading = False
        return result

    def write(self, work: Work, call: Callable[[], ResultT], *, changes: bool = True) -> ResultT:
        """Run anything else; from here on the session is the one that writes.

        :param changes: False for what opens the session's savepoint without changing anything itself.
        :raises LeaseError: another session has uncommitted changes, or as ``read``.
        """
        with self._ready(work, writes=True, changes=changes):
            if not work.is_open:
                self._begin(work)
            try:
                result = call()
            except Exception:
                work.has_failed = self._is_postgresql
                raise
            work.has_failed = False
            return result

    @contextmanager
    def _ready(self, work: Work, *, writes: bool, changes: bool = False) -> Iterator[None]:
        with self._turns.alone(work, writes=writes):
            self.require_open()
            self._admit(self, changes)
            self._has_written = self._has_written or changes
            self._undo_abandoned()
            yield

    def _begin(self, work: Work) -> None:
        self._turns.open_work(work, calling_site())
        try:
            self._say(f"SAVEPOINT {WORK}")
        except Exception:
            self._turns.close_work(work)
            raise

    # how a session's work ends

    def commit(self, work: Work) -> None:
        """Release what a session has written: from here on the others see it as committed.

        :raises LeaseError: the block has ended.
        """
        if not work.is_open:
            return
        with self._turns.alone(work):
            self.require_open()
            self._undo_abandoned()
            if work.has_failed:  # the server's COMMIT would do the same
                self._undo_work(work)
                return
            try:
                self._check_deferred()
            except Exception:
                self._undo_work(work)
                raise
            try:
                self._say(f"RELEASE SAVEPOINT {WORK}")
            finally:
                self._turns.close_work(work)

    def _check_deferred(self) -> None:
        # COMMIT is where deferred constraints fail; going back restores which ones are deferred.
        if self._is_postgresql:
            self._say(f"SAVEPOINT {READ}", "SET CONSTRAINTS ALL IMMEDIATE", f"ROLLBACK TO SAVEPOINT {READ}")

    def roll_back(self, work: Work) -> None:
        """Undo what a session has written since its last commit."""
        if not work.is_open or self.raw is None:
            return
        with self._turns.alone(work):
            if self.raw is not None:
                self._is_reading = False
                self._undo_work(work)

    def _undo_work(self, work: Work | None = None) -> None:
        try:
            self._undo(WORK)
        finally:
            self._turns.close_work(work)

    def _undo_abandoned(self) -> None:
        """Undo what was interrupted in mid-statement, and what a session wrote that was dropped without an end."""
        try:
            if self._is_reading:
                self._undo_reading()
            if self._turns.is_work_abandoned:
                self._undo_work()
        except Exception as error:
            raise errors.did_not_survive(self.database) from error

    def _undo_reading(self) -> None:
        try:
            self._undo(READ)
        finally:
            self._is_reading = False

    def _undo(self, savepoint: str) -> None:
        self._say(f"ROLLBACK TO SAVEPOINT {savepoint}", f"RELEASE SAVEPOINT {savepoint}")

    # the server

    def _say(self, *statements: str) -> None:
        """Send statements about the transaction: all or, if one fails, the ones before it; a cancellation waits."""
        if not self.is_async:
            self._say_now(statements)
            return
        saying = asyncio.ensure_future(greenlet_spawn(self._say_now, statements))
        try:
            await_only(asyncio.shield(saying))
        except asyncio.CancelledError:
            await_only(asyncio.wait({saying}))
            raise

    def _say_now(self, statements: tuple[str, ...]) -> None:
        for statement in statements:
            cursor = self.dbapi.cursor()
            try:
                cursor.execute(statement)
            finally:
                cursor.close()

    def _other_writer(self, work: Work) -> LeaseError:
        return errors.other_writer(
            self.database, has_failed=work.has_failed, site=work.site, max_wait_ns=self._max_wait_ns
        )

    def require_open(self) -> None:
        """Nothing, or the error for somebody who comes too late.

        :raises LeaseError: the block has ended.
        """
        self._require_not_ended()
        if self.raw is None:
            raise errors.block_has_ended(self.database)

    def _require_not_ended(self) -> None:
        if self._was_lost:
            raise errors.loop_has_ended(self.database, self.dialect.driver)
        if self._has_ended:
            raise errors.block_has_ended(self.database)


def _proof_of(origin: Pool, read_functions: frozenset[str]) -> StatementProof | None:
    """The pool's own, which knows the database's types; one of ours where the pool is stock; None to prove nothing."""
    proof: StatementProof | None = getattr(getattr(origin, "lender", None), "proof", None)
    driver = driver_for(cast(Any, origin._dialect))
    if proof is None and driver is not None:
        proof = StatementProof(driver.family, read_functions=read_functions)
    return proof
