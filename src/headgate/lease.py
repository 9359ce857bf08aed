"""The virtual connection: what SQLAlchemy is given instead of a physical connection.

It looks like a checked-out connection with a transaction begun. Behind it a physical connection is leased only
while a statement runs (*reading*) or from the first statement that is not proved a read until the transaction
ends (*pinned*). Whoever reaches for the physical connection itself keeps it until the end (*tainted*).
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import await_only

from headgate.cursor import VirtualCursor
from headgate.drivers import Driver
from headgate.errors import LeaseError
from headgate.sites import calling_site
from headgate.statements import StatementClass

if TYPE_CHECKING:
    from headgate.statements import StatementProof


class Hold(IntEnum):
    """Why a virtual connection keeps its physical one, from not at all to until it is closed."""

    READING = 0
    PINNED = 1
    TAINTED = 2


class Lessor(Protocol):
    """Where leases come from: a pool."""

    driver: Driver
    proof: StatementProof
    cursor_type: type | None
    """The class of the driver's cursors, known from the pool's first connection on."""

    def current(self) -> Lessor: ...

    def acquire_lease(self) -> Lease: ...

    def release_lease(self, lease: Lease) -> None: ...

    def discard_lease(self, lease: Lease, error: BaseException | None) -> None: ...

    def new_lock(self) -> AbstractContextManager[Any]: ...


class Lease:
    """One physical connection, lent: a permit of the gate and a checked-out pool entry that belong together."""

    __slots__ = (
        "__weakref__",
        "acquired_ns",
        "can_lease",
        "dbapi",
        "fairy",
        "flips",
        "is_suspect",
        "on_lost",
        "site",
    )

    def __init__(self, fairy: PoolProxiedConnection, driver: Driver, *, can_lease: bool, acquired_ns: int) -> None:
        self.fairy: PoolProxiedConnection | None = fairy
        self.dbapi: Any = fairy.dbapi_connection
        self.can_lease = can_lease
        self.flips = not driver.is_autocommit(self.dbapi)
        self.acquired_ns = acquired_ns
        self.is_suspect = False
        self.site = ""
        self.on_lost: Any = None

    def __del__(self) -> None:
        # Its session was forgotten. SQLAlchemy's own finalizer resets or ends the connection as soon as the
        # fairy is let go; only then may somebody else have the permit.
        if self.fairy is not None:
            is_detached = self.fairy.is_detached
            self.fairy = None
            self.on_lost(self, is_detached)


class TaskLock:
    """Mutual exclusion of tasks under SQLAlchemy's greenlets, without a switch when nobody else is in."""

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[asyncio.Future[None]] | None = None

    def __enter__(self) -> None:
        if not self._held:
            self._held = True
            return
        if self._waiting is None:
            self._waiting = deque()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await_only(turn)
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False


class VirtualConnection(PoolProxiedConnection):
    """Fulfils SQLAlchemy's ``PoolProxiedConnection``; see the module's docstring."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_hold",
        "_info",
        "_lease",
        "_lock",
        "_pool",
        "_streams",
        "_unread",
    )

    def __init__(self, pool: Lessor) -> None:
        self._pool = pool
        self._lease: Lease | None = None
        self._hold = Hold.READING
        self._closed = False
        self._lock = pool.new_lock()
        self._info: dict[Any, Any] | None = None
        self._streams: list[Any] | None = None
        self._unread: weakref.WeakSet[VirtualCursor] | None = None

    # statements

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor that acquires when it executes; with arguments (a server-side cursor) the driver's own, pinned."""
        if not args and not kwargs:
            return VirtualCursor(self)
        with self._lock:
            lease = self._attached()
            self._keep(lease, Hold.PINNED)
            stream = lease.dbapi.cursor(*args, **kwargs)
            self._streams = [*(self._streams or ()), stream]
            return stream

    def run(self, cursor: VirtualCursor, method: str, statement: Any, args: Any, kwargs: Any) -> Any:
        """Execute on the physical connection: as a read if that is proved, else pinned."""
        with self._lock:
            lease = self._attached()
            hold = self._hold_for(lease, method, statement)
            if hold is Hold.READING:
                return self._run_reading(lease, cursor, statement, args, kwargs)
            self._keep(lease, hold)
            return _interruptible(lease, getattr(cursor.on(lease), method), statement, *args, **kwargs)

    def _hold_for(self, lease: Lease, method: str, statement: Any) -> Hold:
        if self._hold is Hold.TAINTED:
            return Hold.TAINTED
        needed = Hold.TAINTED if type(statement) is not str else _HOLDS[self._pool.proof.classify(statement)]
        if needed is Hold.READING and (method != "execute" or not self._pool.driver.is_idle(lease.dbapi)):
            needed = Hold.PINNED
        return max(self._hold, needed)

    def _run_reading(self, lease: Lease, cursor: VirtualCursor, statement: str, args: Any, kwargs: Any) -> Any:
        driver = self._pool.driver
        real = cursor.on(lease)
        if lease.flips:
            driver.enter_autocommit(lease.dbapi)
        try:
            try:
                result = _interruptible(lease, real.execute, statement, *args, **kwargs)
            except Exception as error:
                if not driver.is_stale_plan(error):
                    raise
                driver.forget_plan(lease.dbapi, real)
                result = _interruptible(lease, real.execute, statement, *args, **kwargs)
            if driver.buffers:
                _interruptible(lease, driver.finish, real)
            else:
                self._remember_unread(cursor)
        finally:
            if lease.flips:
                driver.leave_autocommit(lease.dbapi)
            self._go_back(lease)
        return result

    def _remember_unread(self, cursor: VirtualCursor) -> None:
        if self._unread is None:
            self._unread = weakref.WeakSet()
        self._unread.add(cursor)

    def cursor_closed(self, cursor: VirtualCursor) -> None:
        """The rows of an unbuffered read are done with; its connection may go back."""
        with self._lock:
            if self._unread is not None:
                self._unread.discard(cursor)
            if self._lease is not None:
                self._go_back(self._lease)

    # the physical connection: acquire, keep, give back

    def _attached(self) -> Lease:
        if self._lease is None:
            if self._closed:
                raise InvalidRequestError("This connection is closed")
            self._pool = self._pool.current()
            self._lease = lease = self._pool.acquire_lease()
            if not lease.can_lease:
                self._keep(lease, Hold.TAINTED)
        return self._lease

    def _keep(self, lease: Lease, hold: Hold) -> None:
        if hold > self._hold:
            self._hold = hold
            lease.site = lease.site or calling_site()

    def _go_back(self, lease: Lease) -> None:
        """Give the physical connection back, if nothing needs it any more."""
        if self._hold is not Hold.READING or lease.is_suspect or self._unread:
            return
        driver = self._pool.driver
        if driver.is_dead(lease.dbapi):
            return  # SQLAlchemy is about to ask whether the error was a disconnect, and must see one
        if not driver.is_idle(lease.dbapi):
            self._keep(lease, Hold.PINNED)
            return
        self._lease = None
        self._pool.release_lease(lease)

    def _escape(self) -> Lease:
        """Somebody wants the physical connection itself: from here on it stays until the checkout ends."""
        with self._lock:
            lease = self._attached()
            self._keep(lease, Hold.TAINTED)
            return lease

    def escaping_cursor(self, cursor: VirtualCursor) -> Any:
        """The driver's cursor for somebody who wants more of it than the DBAPI's verbs.

        :raises LeaseError: its connection has been given back already.
        """
        if cursor._lease is not None and cursor._lease is not self._lease:
            raise LeaseError(
                "this cursor's statement was a read, and its connection has been given back.\n"
                "Remedy: call session.pin() or use connection.connection.dbapi_connection before the statement, "
                "so that the connection stays."
            )
        return cursor.on(self._escape())

    def may_have(self, name: str) -> bool:
        """False if the driver's cursors are known to have no such attribute."""
        known = self._pool.cursor_type
        return known is None or hasattr(known, name)

    def pin(self) -> None:
        """Keep one physical connection from here to the end of the transaction."""
        with self._lock:
            self._keep(self._attached(), Hold.PINNED)

    # the transaction

    def commit(self) -> None:
        """Commit if there is something to commit."""
        self._end_transaction("commit")

    def rollback(self) -> None:
        """Roll back if there is something to roll back."""
        self._end_transaction("rollback")

    def _end_transaction(self, method: str) -> None:
        if self._lease is None:
            return
        with self._lock:
            lease = self._lease
            if lease is None:
                return
            if self._hold is not Hold.READING or not self._pool.driver.is_idle(lease.dbapi):
                _interruptible(lease, getattr(lease.dbapi, method))
            if self._hold is Hold.TAINTED:
                return
            self._close_streams()
            self._hold = Hold.READING
            self._go_back(lease)

    def _close_streams(self) -> None:
        # A server-side cursor must not reach for a connection that is somebody else's by then.
        streams, self._streams = self._streams, None
        for stream in streams or ():
            stream.close()

    # the end

    def close(self) -> None:
        """End the checkout and give back whatever is held."""
        self._close_special()

    def _close_special(self, transaction_reset: bool = False) -> None:
        if self._lease is None:
            self._closed = True
            return
        with self._lock:
            self._closed = True
            lease, self._lease = self._lease, None
            if lease is None:
                return
            try:
                if not lease.is_suspect:
                    self._close_streams()
            finally:
                self._pool.release_lease(lease)

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Discard the physical connection, if there is one, and end the checkout; ``soft``: after its next use."""
        lease = self._lease
        if soft:
            if lease is not None and lease.fairy is not None:
                lease.fairy.invalidate(e, soft=True)
            return
        self._closed = True
        self._lease = None
        if lease is not None:
            self._pool.discard_lease(lease, e)

    def detach(self) -> None:
        """Take the physical connection out of its pool; it still counts against the budget until closed."""
        lease = self._escape()
        assert lease.fairy is not None
        lease.fairy.detach()

    # what SQLAlchemy asks without wanting a connection

    @property
    def buffers(self) -> bool:
        """True if the driver has a statement's rows in memory when execute returns."""
        return self._pool.driver.buffers

    @property
    def is_valid(self) -> bool:
        """False once closed or invalidated; never acquires."""
        if self._closed:
            return False
        lease = self._lease
        return lease is None or (lease.fairy is not None and lease.fairy.is_valid)

    @property
    def is_detached(self) -> bool:
        """True after ``detach``; never acquires."""
        lease = self._lease
        return lease is not None and lease.fairy is not None and lease.fairy.is_detached

    @property
    def closed(self) -> bool:
        """True if the physical connection, if any, has ended; never acquires."""
        lease = self._lease
        return self._closed if lease is None else self._pool.driver.is_dead(lease.dbapi)

    @property
    def broken(self) -> bool:
        """psycopg's word for a connection that ended by itself; never acquires."""
        return self._lease is not None and self.closed

    @property
    def autocommit(self) -> Any:
        """The physical connection's setting; with none held there is nothing to roll back."""
        lease = self._lease
        return True if lease is None else lease.dbapi.autocommit

    @property
    def info(self) -> dict[Any, Any]:
        """A dictionary of this checkout; that of the physical connection is ``record_info``."""
        if self._info is None:
            self._info = {}
        return self._info

    @property
    def _connection(self) -> Any:
        # asyncpg's dialect asks the adapter behind this name whether it is closed.
        lease = self._lease
        return _NOT_CONNECTED if lease is None else lease.dbapi._connection

    @property
    def _connection_record(self) -> Any:
        fairy: Any = self._escape().fairy
        return fairy._connection_record

    @property
    def is_connected(self) -> bool:
        """True while a physical connection is leased."""
        return self._lease is not None

    # escapes

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        """The physical DBAPI connection; taints. None once closed."""
        return None if self._closed else self._escape().dbapi

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        """The driver's own connection; taints. None once closed."""
        if self._closed:
            return None
        lease = self._escape()
        assert lease.fairy is not None
        return lease.fairy.driver_connection

    @property
    def record_info(self) -> dict[str, Any] | None:
        """The physical connection's dictionary; taints."""
        lease = self._escape()
        assert lease.fairy is not None
        return lease.fairy.record_info

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._escape().dbapi, name)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._hold.name.lower()
        return f"<VirtualConnection {state}{'' if self._lease is None else ', connected'}>"


class _NotConnected:
    @staticmethod
    def is_closed() -> bool:
        return False


_NOT_CONNECTED = _NotConnected()


def _interruptible(lease: Lease, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except Exception:
        raise
    except BaseException:
        # Interrupted in mid-statement: nobody knows what the server is doing, so nobody may have it next.
        lease.is_suspect = True
        raise


_HOLDS = {
    StatementClass.READ: Hold.READING,
    StatementClass.WRITE: Hold.PINNED,
    StatementClass.OTHER: Hold.TAINTED,
}
