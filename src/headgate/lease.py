"""The virtual connection: what SQLAlchemy is given instead of a physical connection.

It looks like a checked-out connection with a transaction begun. Behind it a physical connection is leased: while a
statement runs, and *warm* until somebody else wants it (*reading*), or from the first statement that is not proved a
read until the transaction ends (*pinned*). Whoever reaches for the physical connection keeps it to the end (*tainted*).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableSet
from contextlib import suppress
from enum import IntEnum
from functools import partial
from typing import Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.pool import PoolProxiedConnection

from headgate.admission import current_admission
from headgate.cancelling import ends_transaction, leave, refuse_commit, rolls_back, run_for
from headgate.checkout_info import CheckoutInfo
from headgate.cursor import ServerCursor, UnbufferedCursor, VirtualCursor, execute
from headgate.errors import LeaseError
from headgate.guard import doubt_guard, lower_guard, lower_guard_in_transaction, may_touch_default, settle_guard
from headgate.lending import Lender
from headgate.lent import Lease, Surface
from headgate.own_values import refuse_own_values
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
            return self._escape("the driver's own cursor was asked for").dbapi.cursor(*args, **kwargs)
        with self._lock:
            lease = self._attached()
            self._keep(lease, Hold.PINNED, "its rows are streamed by a server-side cursor")
            raw = lease.dbapi.cursor(*args, **kwargs)
            if current_admission.get() is not None:
                raw = ServerCursor(raw, lease)
            stream = VirtualStream(self, raw)
            self._remember_unread(stream)
            return stream

    def run(self, cursor: VirtualCursor, method: str, statement: Any, args: Any, kwargs: Any) -> Any:
        """Execute on the physical connection: as a read if that is proved, else pinned."""
        with self._lock:
            lease = self._attached()
            if self._hold >= Hold.TAINTED:
                self._mind_guard(lease, statement, args)
            else:
                found = self._lender.proof.classify(statement)
                if found is StatementClass.READ and method == "execute" and self._may_read(lease):
                    try:
                        return self._run_reading(lease, cursor, statement, args, kwargs)
                    except _NeverSentError:
                        return self._run_elsewhere(lease, cursor, statement, args, kwargs)
                    except _RefusedByGuardError:
                        found, lease = StatementClass.OTHER, self._attached()
                        self._lender.proof.forget(statement)
                self._keep_for(lease, statement, found)
                if found is StatementClass.OTHER:
                    self._mind_guard(lease, statement, args)
            result = _interruptible(lease, getattr(cursor.on(lease), method), statement, args, kwargs)
            if not self._lender.driver.buffers and cursor.description is not None:
                self._remember_unread(cursor)
            elif lease.asks_default and self._lender.driver.is_idle(lease.dbapi):
                self._tend_guard_afterwards(lease)
            return result

    def _mind_guard(self, lease: Lease, statement: Any, args: Any) -> None:
        driver = self._lender.driver
        if lease.guarded and driver.has_lost_transaction(lease.dbapi):
            # After a COMMIT or ROLLBACK as text, asyncpg's adapter sends no BEGIN any more, and stock would go on
            # writing.
            lower_guard(lease)
        elif self._hold is Hold.ESCAPED and driver.is_idle(lease.dbapi):
            self._tend_guard(lease)  # an escapee's own ROLLBACK may have undone that it was lowered
        if lease.standing.has_guard and not lease.asks_default and may_touch_default(statement, args):
            doubt_guard(lease)

    def _run_elsewhere(self, ended: Lease, cursor: VirtualCursor, statement: str, args: Any, kwargs: Any) -> Any:
        """Execute a read once more, on another connection; in its transaction, where nothing is repeated."""
        self._lease = None
        self._lender.discard(ended, None)
        lease = self._attached()
        self._keep(lease, Hold.PINNED)
        return _interruptible(lease, cursor.on(lease).execute, statement, args, kwargs)

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

    def _run_reading(self, lease: Lease, cursor: VirtualCursor, statement: str, args: Any, kwargs: Any) -> Any:
        driver, dbapi, flips = self._lender.driver, lease.dbapi, lease.standing.flips
        real = cursor.on(lease)
        has_failed = False
        if flips:
            driver.enter_autocommit(dbapi)
        try:
            try:
                admission = current_admission.get()
                if admission is None:  # ``execute`` without the call, which costs as much as all it does
                    result = real.execute(statement, *args, **kwargs)
                else:
                    result = run_for(admission, lease, real.execute, (statement, *args), kwargs)
            except Exception as error:
                self._judge(lease, error)
                driver.forget_plan(dbapi, real)
                result = execute(lease, real.execute, statement, args, kwargs)
            if driver.needs_finish:
                cursor.finish()
            elif not driver.buffers:
                self._remember_unread(cursor)
        except Exception:
            # SQLAlchemy is about to ask whether it was a disconnect, and must see one.
            has_failed = driver.is_dead(dbapi)
            raise
        except BaseException as error:
            leave(lease, error)
            raise
        finally:
            if flips:
                driver.leave_autocommit(dbapi)
            if not has_failed:
                self._rest(lease)
        return result

    def _judge(self, lease: Lease, error: Exception) -> None:
        """Return if the read may run again as it is, after a stale plan; raise what else there is to do.

        :raises _RefusedByGuardError: it must run in a transaction.
        :raises _NeverSentError: it must run on another connection.
        """
        driver = self._lender.driver
        if lease.guarded and driver.is_read_only_violation(error):
            raise _RefusedByGuardError from error
        if driver.was_never_sent(error):
            lease.is_suspect = True
            raise _NeverSentError from error
        if not driver.is_stale_plan(error):
            raise error

    def _remember_unread(self, cursor: VirtualCursor | VirtualStream) -> None:
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
                self._rest(self._lease)

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
            self._rest(lease)
            return surface

    def connected(self) -> Lease:
        """A lease to look something up on that is the same for every connection; nothing is kept."""
        with self._lock:
            lease = self._attached()
            self._rest(lease)
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
            lender.pins.saw(lease.site, reason or lender.proof.explain(statement))
        self._hold = hold

    def _rest(self, lease: Lease) -> None:
        """Leave the physical connection to whoever waits for one, if nothing needs it any more."""
        if self._hold is not Hold.READING or self._unread or lease.is_suspect or self._is_warm:
            return
        if not self._lender.driver.is_idle(lease.dbapi):
            self._keep(lease, Hold.PINNED)
            return
        self._is_warm = True
        self._lender.rest(lease)

    def _escape(self, reason: str = "the physical connection was reached for") -> Lease:
        """Somebody wants the physical connection itself: from here on it stays until the checkout ends."""
        with self._lock:
            lease = self._attached()
            self._keep(lease, Hold.ESCAPED, reason)
            self._tend_guard(lease)
            return lease

    def _entry(self) -> Lease:
        """For SQLAlchemy's book-keeping, also about a connection that has just ended: taints, but is no escape."""
        with self._lock:
            lease = self._attached()
            is_dead = self._lender.driver.is_dead(lease.dbapi)
            self._keep(lease, Hold.TAINTED, "" if is_dead else "the physical connection's own entry was asked for")
            return lease

    def _tend_guard_afterwards(self, lease: Lease) -> None:
        # A statement or a commit has succeeded and must be told so; what is left to ask is asked next time.
        with suppress(Exception):
            _interruptible(lease, partial(self._tend_guard, lease))

    def _tend_guard(self, lease: Lease) -> None:
        """Find out whether the application has set the default itself, and lower the guard for an escape."""
        driver, dbapi = self._lender.driver, lease.dbapi
        if not lease.standing.has_guard or driver.is_dead(dbapi):
            return
        is_idle = driver.is_idle(dbapi)
        if is_idle and (lease.asks_default or _has_come_back(lease)):
            settle_guard(lease)
        # Whoever has the connection itself may write outside of the transactions that we begin.
        if lease.guarded and self._hold is Hold.ESCAPED:
            (lower_guard if is_idle else lower_guard_in_transaction)(lease)

    def escaping_cursor(self, cursor: VirtualCursor) -> Any:
        """The driver's cursor for somebody who wants more of it than the DBAPI's verbs.

        :raises LeaseError: its connection has been given back already.
        """
        if cursor.went_back(self.held):
            raise LeaseError(
                "this cursor's statement was a read, and its connection has been given back.\n"
                "Remedy: call session.pin() or use connection.connection.dbapi_connection before the statement, "
                "so that the connection stays."
            )
        return cursor.on(self._escape("the driver's cursor was reached for"))

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
                _interruptible(lease, getattr(lease.dbapi, method))
            if self._hold >= Hold.TAINTED:
                self._tend_guard_afterwards(lease)
                return
            if self._unread and self._streams_end:
                self._end_streams()
            self._hold = Hold.READING
            self._rest(lease)

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
            self._rest(lease)

    def _retire(self, lease: Lease) -> None:
        errors, self._retired = self._retired, None
        for error in errors or ():
            lease.with_fairy().invalidate(error, soft=True)

    def detach(self) -> None:
        """Take the physical connection out of its pool; it still counts against the budget until closed."""
        self._escape().with_fairy().detach()

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
        return None if self._closed else self._escape().dbapi

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        """The driver's own connection; taints. None once closed."""
        return None if self._closed else self._escape().with_fairy().driver_connection

    @property
    def record_info(self) -> dict[str, Any] | None:
        """The physical connection's dictionary; taints."""
        info: dict[str, Any] | None = self._entry().with_fairy().record_info
        return info

    def __getattr__(self, name: str) -> Any:
        # Asking for what the driver does not have either, as instrumentation does, must not cost a connection.
        if name.startswith("_") or not self.driver_has(name):
            raise AttributeError(name)
        return getattr(self._escape(f"the driver's {name!r} was reached for").dbapi, name)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._hold.name.lower()
        warm = ", warm" if self._is_warm else ", connected" if self._lease is not None else ""
        return f"<VirtualConnection {state}{warm}>"


def _has_come_back(lease: Lease) -> bool:
    """Whether the guard had been lowered, and is up: by an escapee's RESET, or as the application's own wish."""
    return lease.standing.guarded and not lease.guarded and lease.lender.driver.reads_by_default(lease.dbapi)


class _RefusedByGuardError(Exception):
    """The server has refused to write for a statement that was taken for a read."""


class _NeverSentError(Exception):
    """The connection was ending before the statement could be sent."""


class _NotConnected:
    @staticmethod
    def is_closed() -> bool:
        return False


_NOT_CONNECTED = _NotConnected()


def _interruptible(
    lease: Lease, call: Callable[..., Any], statement: Any = None, args: Any = (), kwargs: Any = None
) -> Any:
    is_ending = statement is None or ends_transaction(statement)
    if is_ending and isinstance(statement, str) and not rolls_back(statement):
        refuse_commit(current_admission.get(), lease)
    try:
        if statement is None:
            return call()
        return call(statement, *args, **kwargs) if is_ending else execute(lease, call, statement, args, kwargs)
    except Exception:
        raise
    except BaseException as error:
        if is_ending:  # it may be done by now, and must not be cancelled
            lease.is_suspect = True
        else:
            leave(lease, error)
        raise
