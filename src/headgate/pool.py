"""LeasePool and AsyncLeasePool: SQLAlchemy's queue pools that hand out virtual connections.

Free physical connections stay checked in to SQLAlchemy's own queue, so its bookkeeping, recycling, pre-ping and
events go on as ever. The gate bounds how many are out, so nobody ever waits inside that queue.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any, Final, cast

from sqlalchemy.pool import (
    AsyncAdaptedQueuePool,
    ConnectionPoolEntry,
    PoolProxiedConnection,
    QueuePool,
)
from sqlalchemy.pool.base import _ConnectionRecord, reset_commit, reset_rollback
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet
from sqlalchemy.util.queue import Empty, Queue, QueueCommon

from headgate.admission import Ask
from headgate.config import GateOptions, LeaseOptions, budget_of, is_switched_off
from headgate.drivers import Driver, driver_for, has_input
from headgate.errors import ConfigError
from headgate.forks import watch_forks
from headgate.gate import Gate
from headgate.guard import ASKED, GUARD, ask_for_guard, is_refused_parameter, stop_asking_for_guard
from headgate.hooks import with_hooks
from headgate.lease import VirtualConnection
from headgate.lending import PING_AFTER_IDLE_NS, Lender
from headgate.places import END_TIMEOUT_MS, Places, unite
from headgate.queueing import Kind
from headgate.raw_connections import replace_raw_connections
from headgate.seams import can_lease_from_sqlalchemy
from headgate.waiters import Grant, TaskLock

log = logging.getLogger("headgate.pool")

replace_raw_connections()

OUR_ARGUMENTS = ("gate", "lease_options")

RETURNED_NS = "headgate.returned_ns"
"""Key in a physical connection's ``info``: when it was checked in last."""


class _Leasing(QueuePool):
    """What the two pools share; they differ in who waits and how."""

    driver: Driver
    kind: Kind

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Where Headgate does not lease at all, the pool is SQLAlchemy's own."""
        _require_gate(kwargs.get("gate"))
        driver = driver_for(kwargs.get("dialect"))
        options = kwargs.get("lease_options") or LeaseOptions()
        if driver is None:
            log.info("connections are not leased: Headgate knows psycopg, asyncpg, sqlite3 and aiosqlite")
        elif is_switched_off():
            log.warning("connections are not leased and the gate does not count: HEADGATE=off is set")
        elif options.enabled and can_lease_from_sqlalchemy(options):
            pool = super().__new__(cls)
            pool.driver = driver
            return pool
        stock = AsyncAdaptedQueuePool if cls._is_asyncio else QueuePool
        ours = {name: value for name, value in kwargs.items() if name not in OUR_ARGUMENTS}
        return with_hooks(stock(*args, **ours), options)

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 30.0,
        use_lifo: bool = False,
        gate: Gate | None = None,
        lease_options: LeaseOptions | None = None,
        **kw: Any,
    ) -> None:
        self._asked_size, self._asked_overflow = pool_size, max_overflow
        self.options = lease_options or LeaseOptions()
        self.gate = gate or Gate(GateOptions(connections=budget_of(pool_size, max_overflow), max_wait=timeout))
        self.gate.describe_holders = self._describe_holders
        self.lender = Lender(self, self.gate, self.driver, self.kind, self.options)
        self.places = Places(self, self.gate)
        self._successor: _Leasing | None = None
        self._is_disposed = False
        self._is_initialized = False
        # Every lease ends with a check-in: an overflow that is closed then would connect once a statement.
        # The bound is the gate's; SQLAlchemy's queue must never make anybody wait for it.
        super().__init__(creator, self.gate.connections, -1, timeout, use_lifo, **kw)
        if self.options.guard:
            ask_for_guard(self._dialect)
        watch_forks(self)

    # SQLAlchemy's side

    def connect(self) -> PoolProxiedConnection:
        """A virtual connection; nothing is acquired before its first statement.

        The very first one of a pool connects at once, because SQLAlchemy learns about the server there.
        """
        virtual = VirtualConnection(self.lender)
        if not self._is_initialized:
            self.lender.surface = virtual.warm_up()
            self._is_initialized = True
        return virtual

    def recreate(self) -> Any:
        """A new pool of the same kind over the same gate, as ``Engine.dispose`` asks for.

        What is still leased from the old one counts against the budget until it comes back and is closed.
        """
        new = self.like(self, gate=self.gate, lease_options=self.options)
        new._is_initialized, new.lender.surface = self._is_initialized, self.lender.surface
        with _SUCCEEDING:
            for other in self.places.pools():
                if other is not self:
                    unite(new, other)
            self._successor, self.lender.is_closing = new, True  # first: what comes back from now on is closed
        self.lender.revoke_warm()
        if self._is_disposed:
            self._close_idle()
        else:
            for record in self._drain():  # dispose(close=False) abandons them, e.g. in a forked child
                self.places.give(record.dbapi_connection)
        return new

    def dispose(self) -> None:
        """Close what is idle; what is leased is closed when it comes back."""
        self._is_disposed = True
        self.lender.revoke_warm()
        self._close_idle()

    def _close_idle(self) -> None:
        records = self._drain()
        try:
            while records:
                records.pop().close()
        finally:
            for record in records:  # interrupted
                self.places.end(record.dbapi_connection)

    def _drain(self) -> list[ConnectionPoolEntry]:
        """Take everything out of SQLAlchemy's queue at once, so that nobody is handed what is about to be closed."""
        records = []
        while (record := self.take_idle()) is not None:
            records.append(record)
        return records

    def take_idle(self) -> ConnectionPoolEntry | None:
        """Take an idle connection out of SQLAlchemy's queue, if there is one."""
        try:
            record = self._pool.get(False)
        except Empty:
            return None
        self._dec_overflow()
        return record

    def take_back_lost(self, record: Any) -> bool:
        """Forget an entry whose check-in was interrupted; False if it is in the queue nevertheless."""
        queued: Any = self._pool
        if any(other is record for other in list(queued.queue)):
            return False
        record.dbapi_connection = None
        self._dec_overflow()
        return True

    def current(self) -> _Leasing:
        """This pool, or the one that ``Engine.dispose`` has put in its place."""
        pool = self
        while pool._successor is not None:
            pool = pool._successor
        return pool

    @classmethod
    def like(cls, pool: QueuePool, **kw: Any) -> Any:
        """A pool of this kind with the creator, size and settings of another."""
        overflow = pool._asked_overflow if isinstance(pool, _Leasing) else pool._max_overflow
        return cls(
            pool._creator,
            pool_size=pool.size(),
            max_overflow=overflow,
            timeout=pool._timeout,
            use_lifo=pool._pool.use_lifo,
            pre_ping=pool._pre_ping,
            recycle=pool._recycle,
            echo=pool.echo,
            logging_name=pool._orig_logging_name,
            reset_on_return=pool._reset_on_return,
            _dispatch=pool.dispatch,
            dialect=pool._dialect,
            **kw,
        )

    def _invalidate(self, connection: Any, exception: BaseException | None = None, _checkin: bool = True) -> None:
        if isinstance(connection, VirtualConnection) and not connection.is_connected:
            # SQLAlchemy asks a connection when it was opened; one that is none has no answer, and gets none opened.
            self._invalidate_time = time.time()
            return
        super()._invalidate(connection, exception, _checkin)

    def _create_connection(self) -> ConnectionPoolEntry:
        record: Any = _ConnectionRecord(self, connect=False)
        try:
            record.get_connection()
        except BaseException:
            # SQLAlchemy 2.0 forgets a connection whose listeners failed or were cancelled.
            connection, record.dbapi_connection = record.dbapi_connection, None
            if connection is not None:
                self._close_connection(connection, terminate=True)
            raise
        return cast(ConnectionPoolEntry, record)

    def _do_get(self) -> ConnectionPoolEntry:
        record: Any = super()._do_get()
        if self._pre_ping:
            idle_ns = self.gate.clock() - record.info.get(RETURNED_NS, -PING_AFTER_IDLE_NS)
            record.fresh = record.fresh or idle_ns < PING_AFTER_IDLE_NS
        return cast(ConnectionPoolEntry, record)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self._pre_ping:
            record.info[RETURNED_NS] = self.gate.clock()
        if self._successor is None:
            super()._do_return_conn(record)
            if self._successor is not None:  # disposed in between: nobody looks into this queue any more
                self._close_idle()
            return
        try:
            record.close()
        finally:
            self._dec_overflow()

    def size(self) -> int:
        """``pool_size`` as it was asked for."""
        return self._asked_size

    def overflow(self) -> int:
        """Open connections beyond ``pool_size``; negative while there are fewer."""
        return len(self.places) - self._asked_size

    def checkedout(self) -> int:
        """Physical connections that somebody holds; those left with their holders between statements don't count."""
        return self.lender.count_held()

    def reset(self, virtual: VirtualConnection) -> None:
        """What the pool does to a connection on its return, for a virtual one that has nothing to undo."""
        dialect: Any = self._dialect
        if self._reset_on_return is reset_rollback:
            dialect.do_rollback(virtual)
        elif self._reset_on_return is reset_commit:
            dialect.do_commit(virtual)

    # what the two kinds do differently

    def wait_for_permit(self, ask: Ask) -> Grant:
        """A permit from the gate, with a warm lease in it or not, waiting as this kind of pool waits."""
        return self.gate.acquire(ask)

    def new_lock(self) -> AbstractContextManager[Any]:
        """Mutual exclusion for one virtual connection."""
        return threading.RLock()

    def _describe_holders(self) -> str:
        sites = sum((pool.lender.sites() for pool in self.places.pools()), Counter[str]())
        return ", ".join(f"{site} ({count})" for site, count in sites.most_common(5))

    def leave_to_parent(self) -> list[Any]:
        """In a forked child: let go of everything without touching it, and return it to be kept."""
        kept = self.lender.leave_to_parent()
        while (record := self.take_idle()) is not None:
            kept.append(record)
        self.places.forget()
        self.gate.start_anew()
        return kept

    # connects and closes

    def _should_wrap_creator(self, creator: Any) -> Any:
        create = super()._should_wrap_creator(creator)

        def create_in_a_place(record: ConnectionPoolEntry) -> Any:
            self.places.take()
            try:
                connection = self._create(create, record)
            except BaseException as error:
                if not isinstance(error, Exception):
                    # A cancelled connect of psycopg lives on in the frames of its traceback, with an open socket.
                    traceback.clear_frames(error.__traceback__)
                self.gate.give_place()
                raise
            self.places.remember(connection)
            record.info[GUARD] = record.info.get(ASKED, False) and self.driver.raise_guard(connection)
            return connection

        return create_in_a_place

    def _create(self, create: Callable[[ConnectionPoolEntry], Any], record: ConnectionPoolEntry) -> Any:
        try:
            return create(record)
        except Exception as error:
            # Of several that connect at once each has asked, and the dialect is told by the first that comes back.
            if not is_refused_parameter(error) or not record.info.pop(ASKED, False):
                raise
            stop_asking_for_guard(self._dialect)
        return create(record)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        try:
            if self.kind == "sync" or in_greenlet():
                self._close_and_wait(connection, terminate=terminate)
        finally:
            self.places.end(connection)  # in a thread, a finalizer, or because the close was interrupted

    def _close_and_wait(self, connection: Any, *, terminate: bool) -> None:
        """Close, and wait until the server has let go, so that it never counts one too many."""
        descriptor = None if terminate else self.driver.watch_end(connection)
        if descriptor is None:
            super()._close_connection(connection, terminate=terminate)
            return
        with closing(socket.socket(fileno=descriptor)):
            super()._close_connection(connection, terminate=terminate)
            self.wait_for_end(descriptor)

    def wait_for_end(self, descriptor: int) -> None:
        """Wait until the server has let go of a connection, so that it never counts one too many."""
        has_input(descriptor, END_TIMEOUT_MS)

    def pause(self, seconds: float) -> None:
        """Let others go on."""
        time.sleep(seconds)


def _require_gate(given: object) -> None:
    if not isinstance(given, Gate | None):
        raise ConfigError(
            f"gate=<{type(given).__name__}> cannot work: give a Gate, as gate=Gate(GateOptions(connections=15)), "
            "which is imported by «from headgate.gate import Gate»"
        )


_SUCCEEDING: Final = threading.Lock()
"""Of two pools that are disposed of at once, the second must be united with the first's successor."""


class LeasePool(_Leasing):
    """For ``create_engine(..., poolclass=LeasePool)``: takes the arguments of SQLAlchemy's ``QueuePool``."""

    kind: Kind = "sync"


class AsyncLeasePool(_Leasing, AsyncAdaptedQueuePool):
    """For ``create_async_engine(..., poolclass=AsyncLeasePool)``: as ``AsyncAdaptedQueuePool``."""

    kind: Kind = "async"

    # Nobody waits in it, and other threads look into it, which asyncio's own queue does not bear.
    _queue_class: type[QueueCommon[ConnectionPoolEntry]] = Queue

    def wait_for_permit(self, ask: Ask) -> Grant:
        """As for threads; a task waits without holding up its loop."""
        grant = self.gate.acquire_nowait("async", ask.rank)
        return grant if grant is not None else await_only(self.gate.acquire_async(ask))

    def new_lock(self) -> AbstractContextManager[Any]:
        """Mutual exclusion for one virtual connection."""
        return TaskLock()

    def wait_for_end(self, descriptor: int) -> None:
        """Wait, without holding up the loop, until the server has let go of a connection."""
        for _ in range(END_TIMEOUT_MS):
            if has_input(descriptor):
                return
            self.pause(0.001)

    def pause(self, seconds: float) -> None:
        """Let others go on."""
        await_only(asyncio.sleep(seconds))
