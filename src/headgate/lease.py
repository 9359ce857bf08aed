"""The virtual connection: what SQLAlchemy is given instead of a physical connection.

It looks like a checked-out connection with a transaction begun. Behind it a physical connection is leased: while a
statement runs, and *warm* until somebody else wants it (*reading*), or from the first statement that is not proved a
read until the transaction ends (*pinned*). Whoever reaches for the physical connection keeps it to the end (*tainted*).
"""

from __future__ import annotations

import weakref
from collections.abc import MutableSet
from enum import IntEnum
from typing import Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.pool import PoolProxiedConnection

from headgate.admission import current_admission
from headgate.cancelling import refuse_commit
from headgate.checkout_info import CheckoutInfo
from headgate.cursor import ServerCursor, UnbufferedCursor, VirtualCursor
from headgate.executing import interruptible
from headgate.guard import mind_guard, tend_guard, tend_guard_afterwards
from headgate.lending import Lender
from headgate.lent import Lease, Surface
from headgate.own_values import refuse_own_values
from headgate.reading import NeverSentError, RefusedByGuardError, run_read
from headgate.sites import calling_site
from headgate.statements import StatementClass
from headgate.streams import VirtualStream


class Hold(IntEnum):
    """Why a virtual connection keeps its physical one, from not at all to until it is closed."""

    READING = 0
    PINNED = 1
    TAINTED = 2
    ESCAPED = 3
    """Tainted, and whoever has the physical connection may do with it what we don't see."""


class VirtualConnection(PoolProxiedConnection):
    """Fulfils SQLAlchemy's ``PoolProxiedConnection``; see the module's docstring."""

    __slots__ = (
        "__dict__",  # whatever an application sets on it, as on SQLAlchemy's own handle
        "__weakref__",
        "_closed",
        "_hold",
        "_info",
        "_is_warm",
        "_lease",
        "_lender",
        "_lock",
        "_retired",
        "_unread",
        "_wrote_on",
    )

    def __init__(self, lender: Lender) -> None:
        self._lease: Lease | None = None
        self._is_warm = False  # the lease is the gate's, and may be somebody else's by now
        self._lender = lender
        self._hold = Hold.READING
        self._closed = False
        self._lock = lender.pool.new_lock()
        self._info: CheckoutInfo | None = None
        self._retired: list[BaseException | None] | None = None  # invalidated softly with nothing leased
        self._unread: MutableSet[VirtualCursor | VirtualStream] | None = None
        self._wrote_on: Any = None

    def __del__(self) -> None:
        if self._lease is not None:
            self._lender.lose(self._lease, is_warm=self._is_warm)

    # statements

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor that acquires when it executes; as SQLAlchemy asks for it, a server-side one, pinned.

        With other arguments it is the driver's own, and an escape: nobody sees what is done with it.
        """
        if not args and not kwargs:
            return VirtualCursor(self) if self._lender.driver.buffers else UnbufferedCursor(self)
        if kwargs != {"server_side": True} and (kwargs or [type(arg) for arg in args] != [str]):
            return self.escape("the driver's own cursor was asked for").dbapi.cursor(*args, **kwargs)
        with self._lock:
            lease = self._attached()
            self._keep(lease, Hold.PINNED, "its rows are streamed by a server-side cursor")
            raw = lease.dbapi.cursor(*args, **kwargs)
            if current_admission.get() is not None:
                raw = ServerCursor(raw, lease)
            stream = VirtualStream(self, raw)
            self.remember_unread(stream)
            return stream

    def run(self, cursor: VirtualCursor, method: str, statement: Any, args: Any, kwargs: Any) -> Any:
        """Execute on the physical connection: as a read if that is proved, else pinned."""
        with self._lock:
            lease = self._attached()
            if self._hold >= Hold.TAINTED:
                mind_guard(lease, statement, args, is_escaped=self._hold is Hold.ESCAPED)
            else:
                found = self._lender.proof.classify(statement)
                if found is StatementClass.READ and method == "execute" and self._may_read(lease):
                    try:
                        return run_read(self, lease, cursor, statement, args, kwargs)
                    except NeverSentError:
                        return self._run_elsewhere(lease, cursor, statement, args, kwargs)
                    except RefusedByGuardError:
                        found, lease = StatementClass.OTHER, self._attached()
                        self._lender.proof.forget(statement)
                self._keep_for(lease, statement, found)
                if found is StatementClass.OTHER:
                    mind_guard(lease, statement, args, is_escaped=self._hold is Hold.ESCAPED)
            result = interruptible(lease, getattr(cursor.on(lease), method), statement, args, kwargs)
            if not self._lender.driver.buffers and cursor.description is not None:
                self.remember_unread(cursor)
            elif lease.asks_default and self._lender.driver.is_idle(lease.dbapi):
                tend_guard_afterwards(lease, is_escaped=self._hold is Hold.ESCAPED)
            return result

    def _run_elsewhere(self, ended: Lease, cursor: VirtualCursor, statement: str, args: Any, kwargs: Any) -> Any:
        """Execute a read once more, on another connection; in its transaction, where nothing is repeated."""
        self._lease = None
        self._lender.discard(ended, None)
        lease = self._attached()
        self._keep(lease, Hold.PINNED)
        return interruptible(lease, cursor.on(lease).execute, statement, args, kwargs)

    def _may_read(self, lease: Lease) -> bool:
        return self._hold is Hold.READING and self._lender.driver.is_idle(lease.dbapi)

    def _keep_for(self, lease: Lease, statement: Any, found: StatementClass) -> None:
        """Pin or taint for a statement that is not, or not here, a read."""
        if found is StatementClass.OTHER:
            if self._wrote_on is not None and self._wrote_on is not lease:
                refuse_own_values(statement, self._lender.driver.family)
            self._keep(lease, Hold.TAINTED, statement=statement)
        elif self._hold is Hold.READING:
            self._keep(lease, Hold.PINNED)
        self._wrote_on = lease

    def remember_unread(self, cursor: VirtualCursor | VirtualStream) -> None:
        """The connection stays until the rows of this cursor are done with."""
        if self._unread is None:
            # A forgotten cursor of SQLite is none any more; a server keeps its own until we close it.
            self._unread = set() if self._streams_end else weakref.WeakSet()
        self._unread.add(cursor)

    def finish(self, real: Any) -> None:
        """Detach a driver's cursor from its connection."""
        self._lender.driver.finish(real)

    def cursor_closed(self, cursor: VirtualCursor | VirtualStream) -> None:
        """The rows of an unbuffered read or a stream are done with; its connection may rest."""
        with self._lock:
            if self._unread is not None:
                self._unread.discard(cursor)
            if self._lease is not None and not self._is_warm:
                self.rest(self._lease)

    # the physical connection: acquire, keep, leave to whoever waits

    def _attached(self) -> Lease:
        lease = self._lease
        if lease is not None:
            if not self._is_warm:
                if not lease.is_valid:
                    raise InvalidRequestError("This connection is closed")
                return lease
            self._is_warm = False
            if self._lender.resume(lease):
                return lease
            self._lease = None
        if self._closed:
            raise InvalidRequestError("This connection is closed")
        if self._lender.is_closing:
            self._lender = self._lender.pool.current().lender
        self._lease = lease = self._lender.acquire(is_under_way=lease is not None)
        if not lease.standing.can_lease:
            self._keep(lease, Hold.TAINTED, "its isolation or transaction mode needs one connection throughout")
        if self._info is not None:
            self._info.follow(lease.record.info)
        if self._retired is not None:
            self._retire(lease)
        return lease

    def warm_up(self) -> Surface:
        """Acquire before the first statement; returns what the driver's objects are made of.

        SQLAlchemy learns about the server from the first connection of a pool, and needs a real one for it.
        """
        with self._lock:
            lease = self._attached()
            try:
                cursor = lease.dbapi.cursor()
                cursor.close()
            except BaseException as error:
                self.invalidate(error)  # nobody else knows of this virtual connection
                raise
            surface = Surface(type(cursor), frozenset(dir(lease.dbapi)))
            self.rest(lease)
            return surface

    def connected(self) -> Lease:
        """A lease to look something up on that is the same for every connection; nothing is kept."""
        with self._lock:
            lease = self._attached()
            self.rest(lease)
            return lease

    @property
    def held(self) -> Lease | None:
        """The lease, if nobody else can have it."""
        return None if self._is_warm else self._lease

    def _keep(self, lease: Lease, hold: Hold, reason: str = "", statement: Any = None) -> None:
        if hold <= self._hold:
            return
        lender = self._lender
        if lender.wants_sites and not lease.site:
            lease.site = calling_site()
        is_news = self._hold is Hold.READING and (reason or statement is not None)
        if is_news and lender.pins.is_watching:
            why = reason or lender.proof.explain(statement)
            lender.pins.saw(lease.site, why, is_tainted=hold >= Hold.TAINTED)
        self._hold = hold

    def rest(self, lease: Lease) -> None:
        """Leave the physical connection to whoever waits for one, if nothing needs it any more."""
        if self._hold is not Hold.READING or self._unread or lease.is_suspect or self._is_warm:
            return
        if not self._lender.driver.is_idle(lease.dbapi):
            self._keep(lease, Hold.PINNED)
            return
        self._is_warm = True
        self._lender.rest(lease)

    def escape(self, reason: str = "the physical connection was reached for") -> Lease:
        """Somebody wants the physical connection itself: from here on it stays until the checkout ends."""
        with self._lock:
            lease = self._attached()
            self._keep(lease, Hold.ESCAPED, reason)
            tend_guard(lease, is_escaped=True)
            return lease

    def _entry(self) -> Lease:
        """For SQLAlchemy's book-keeping, also about a connection that has just ended: taints, but is no escape."""
        with self._lock:
            lease = self._attached()
            is_dead = self._lender.driver.is_dead(lease.dbapi)
            self._keep(lease, Hold.TAINTED, "" if is_dead else "the physical connection's own entry was asked for")
            return lease

    def may_have(self, name: str) -> bool:
        """False if the driver's cursors are known to have no such attribute."""
        surface = self._lender.surface
        return surface is None or hasattr(surface.cursor_type, name)

    def driver_has(self, name: str) -> bool:
        """False if the driver's connections are known to have no such attribute."""
        surface = self._lender.surface
        if surface is None or name in surface.connection_names:
            return True
        return self._lease is not None and hasattr(self._lease.dbapi, name)  # a listener may have set it

    def pin(self) -> Lease:
        """Keep one physical connection from here to the end of the transaction."""
        with self._lock:
            lease = self._attached()
            self._keep(lease, Hold.PINNED)
            return lease

    # the transaction

    def commit(self) -> None:
        """Commit if there is something to commit."""
        self._end_transaction("commit")

    def rollback(self) -> None:
        """Roll back if there is something to roll back."""
        self._end_transaction("rollback")

    def _end_transaction(self, method: str) -> None:
        if self._lease is None or self._is_warm:
            return
        with self._lock:
            lease = self.held
            if lease is None:
                return
            if self._hold is not Hold.READING or not self._lender.driver.is_idle(lease.dbapi):
                if method == "commit":
                    refuse_commit(current_admission.get(), lease)
                interruptible(lease, getattr(lease.dbapi, method))
            if self._hold >= Hold.TAINTED:
                tend_guard_afterwards(lease, is_escaped=self._hold is Hold.ESCAPED)
                return
            if self._unread and self._streams_end:
                self._end_streams()
            self._hold = Hold.READING
            self.rest(lease)

    @property
    def _streams_end(self) -> bool:
        # SQLite's go on after a commit, and keep their connection meanwhile.
        return self._lender.driver.family == "postgresql"

    def _end_streams(self) -> None:
        unread, self._unread = list(self._unread or ()), None
        for cursor in unread:
            if isinstance(cursor, VirtualStream):
                cursor.end(self._lender.pool._dialect)

    # the end

    def close(self) -> None:
        """End the checkout, reset what is to be reset, and give back whatever is held."""
        if self._closed:
            return
        held = self.held
        if self._hold is not Hold.READING or (held is not None and self._lender.driver.is_dead(held.dbapi)):
            self._close_special()
            return
        try:
            self._lender.pool.reset(self)
        finally:
            self._close_special(transaction_reset=True)

    def _close_special(self, transaction_reset: bool = False) -> None:
        self._closed = True
        if self._lease is None:
            return
        with self._lock:
            lease, self._lease = self._lease, None
            if lease is None:
                return
            if self._is_warm:
                self._is_warm = False
                self._lender.release_warm(lease)
                return
            try:
                if self._unread and not lease.is_suspect:
                    self._end_streams()
            finally:
                self._lender.release(lease, was_reset=transaction_reset)

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Discard the physical connection, if there is one, and end the checkout; ``soft``: after its next use."""
        if soft:
            self._invalidate_softly(e)
            return
        self._closed = True
        lease, self._lease = self._lease, None
        is_warm, self._is_warm = self._is_warm, False
        if lease is not None and (not is_warm or self._lender.reclaim(lease)):
            self._lender.discard(lease, e)

    def _invalidate_softly(self, error: BaseException | None) -> None:
        with self._lock:
            self._retired = [error]
            if self._lease is None:
                return
            lease = self._attached()
            if self._retired is not None:  # else it is another one, which was retired when it came
                self._retire(lease)
            self.rest(lease)

    def _retire(self, lease: Lease) -> None:
        errors, self._retired = self._retired, None
        for error in errors or ():
            lease.with_fairy().invalidate(error, soft=True)

    def detach(self) -> None:
        """Take the physical connection out of its pool; it still counts against the budget until closed."""
        self.escape().with_fairy().detach()

    # what SQLAlchemy asks without wanting a connection

    @property
    def buffers(self) -> bool:
        """True if the driver has a statement's rows in memory when execute returns."""
        return self._lender.driver.buffers

    @property
    def is_valid(self) -> bool:
        """False once closed or invalidated; never acquires."""
        if self._closed:
            return False
        lease = self.held
        return lease is None or lease.is_valid

    @property
    def is_detached(self) -> bool:
        """True after ``detach``; never acquires."""
        lease = self.held
        return lease is not None and lease.is_detached

    @property
    def closed(self) -> bool:
        """True if the physical connection, if any, has ended; never acquires."""
        lease = self.held
        return self._closed if lease is None else self._lender.driver.is_dead(lease.dbapi)

    @property
    def broken(self) -> bool:
        """psycopg's word for a connection that ended by itself; never acquires."""
        return self.held is not None and self.closed

    @property
    def autocommit(self) -> Any:
        """The physical connection's setting; with none held there is nothing to roll back."""
        if "autocommit" in self.__dict__:
            return self.__dict__["autocommit"]
        lease = self.held
        return True if lease is None else lease.dbapi.autocommit

    @autocommit.setter
    def autocommit(self, value: Any) -> None:
        # As with every other name that is set on SQLAlchemy's own handle, the driver does not hear of it.
        self.__dict__["autocommit"] = value

    @property
    def info(self) -> dict[Any, Any]:
        """A dictionary of this checkout, with what was noted about the physical connection, once one is leased."""
        if self._info is None:
            self._info = CheckoutInfo()
            record = None if self._lease is None else self._lease.record
            if record is not None:
                self._info.follow(record.info)
        return self._info

    @property
    def _connection(self) -> Any:
        # asyncpg's dialect asks the adapter behind this name whether it is closed.
        lease = self.held
        return _NOT_CONNECTED if lease is None else lease.dbapi._connection

    @property
    def _pool(self) -> Any:
        # As SQLAlchemy's own handle has it.
        return self._lender.pool

    @property
    def _connection_record(self) -> Any:
        return self._entry().record

    @property
    def is_connected(self) -> bool:
        """True while a physical connection is leased that nobody else can have."""
        return self.held is not None

    @property
    def holds_nothing(self) -> bool:
        """True if ending the checkout has nothing to send."""
        if self._lease is None:
            return True
        return self._hold is Hold.READING and self._is_warm and self._lender.checks_in_silently

    # escapes

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        """The physical DBAPI connection; taints. None once closed."""
        return None if self._closed else self.escape().dbapi

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        """The driver's own connection; taints. None once closed."""
        return None if self._closed else self.escape().with_fairy().driver_connection

    @property
    def record_info(self) -> dict[str, Any] | None:
        """The physical connection's dictionary; taints."""
        info: dict[str, Any] | None = self._entry().with_fairy().record_info
        return info

    def __getattr__(self, name: str) -> Any:
        # Asking for what the driver does not have either, as instrumentation does, must not cost a connection.
        if name.startswith("_") or not self.driver_has(name):
            raise AttributeError(name)
        return getattr(self.escape(f"the driver's {name!r} was reached for").dbapi, name)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._hold.name.lower()
        warm = ", warm" if self._is_warm else ", connected" if self._lease is not None else ""
        return f"<VirtualConnection {state}{warm}>"


class _NotConnected:
    @staticmethod
    def is_closed() -> bool:
        return False


_NOT_CONNECTED = _NotConnected()
