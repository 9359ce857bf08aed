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
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any, TypeVar, cast

import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import (
    AsyncAdaptedQueuePool,
    ConnectionPoolEntry,
    PoolProxiedConnection,
    QueuePool,
)
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.queue import Empty, Queue, QueueCommon

from headgate.config import GateOptions, LeaseOptions, is_switched_off
from headgate.drivers import Driver, driver_for, has_input
from headgate.errors import ConfigError, LeaseError
from headgate.gate import Gate
from headgate.lease import Lease, TaskLock, VirtualConnection
from headgate.seams import missing_seams
from headgate.statements import StatementProof

log = logging.getLogger("headgate.pool")

OUR_ARGUMENTS = ("gate", "lease_options")

CAN_LEASE = "headgate.can_lease"
"""Key in a physical connection's ``info``: the answer to the one question asked of each."""

RETURNED_NS = "headgate.returned_ns"
"""Key in a physical connection's ``info``: when it was checked in last."""

PING_AFTER_IDLE_NS = 1_000_000_000
"""With ``pool_pre_ping``, a connection that was idle for less is not pinged again: leases come once a statement."""

END_TIMEOUT_MS = 100
"""How long a server may take to let go of a connection that was ended; it takes one or two."""

PLACE_PAUSE_S = 0.002
PLACE_ATTEMPTS = 2500
"""Closing takes milliseconds; whoever needs the place comes back that often, five seconds in all."""


class _Leasing(QueuePool):
    """What the two pools share; they differ in who waits and how."""

    driver: Driver

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Where Headgate does not lease at all, the pool is SQLAlchemy's own."""
        driver = driver_for(kwargs.get("dialect"))
        options = kwargs.get("lease_options") or LeaseOptions()
        if driver is None:
            log.info("connections are not leased: Headgate knows psycopg, asyncpg, sqlite3 and aiosqlite")
        elif is_switched_off():
            log.warning("connections are not leased and the gate does not count: HEADGATE=off is set")
        elif options.enabled and _can_lease_from_sqlalchemy(options):
            pool = super().__new__(cls)
            pool.driver = driver
            return pool
        stock = AsyncAdaptedQueuePool if cls._is_asyncio else QueuePool
        return stock(*args, **{name: value for name, value in kwargs.items() if name not in OUR_ARGUMENTS})

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
        self.cursor_type: type | None = None
        self._leases: dict[int, weakref.ref[Lease]] = {}
        self._open: set[int] = set()  # identities of the connections that have a place
        self._successor: _Leasing | None = None
        self._is_disposed = False
        self._kin: list[weakref.ref[_Leasing]] = []
        self._is_initialized = False
        self._has_told_why_not = False
        self.proof = StatementProof(self.driver.family, read_functions=self.options.read_functions)
        # Every lease ends with a check-in: an overflow that is closed then would connect once a statement.
        # The bound is the gate's; SQLAlchemy's queue must never make anybody wait for it.
        super().__init__(creator, self.gate.connections, -1, timeout, use_lifo, **kw)

    # SQLAlchemy's side

    def connect(self) -> PoolProxiedConnection:
        """A virtual connection; nothing is acquired before its first statement.

        The very first one of a pool connects at once, because SQLAlchemy learns about the server there.
        """
        if not self._is_initialized:
            self._initialize()
        return VirtualConnection(self)

    def _initialize(self) -> None:
        lease = self.acquire_lease()
        try:
            cursor = lease.dbapi.cursor()
            self.cursor_type = type(cursor)
            cursor.close()
        finally:
            self.release_lease(lease)
        self._is_initialized = True

    def recreate(self) -> Any:
        """A new pool of the same kind over the same gate, as ``Engine.dispose`` asks for.

        What is still leased from the old one counts against the budget until it comes back and is closed.
        """
        new = self._like(self, gate=self.gate, lease_options=self.options)
        new._is_initialized, new.cursor_type = self._is_initialized, self.cursor_type
        for other in self.kin():
            unite(new, other)
        self._successor = new  # first: what comes back from now on is closed
        if self._is_disposed:
            self._close_idle()
        else:
            for record in self._drain():  # dispose(close=False) abandons them, e.g. in a forked child
                self._give_place(record.dbapi_connection)
        return new

    def dispose(self) -> None:
        """Close what is idle; what is leased is closed when it comes back."""
        self._is_disposed = True
        self._close_idle()

    def _close_idle(self) -> None:
        records = self._drain()
        try:
            while records:
                records.pop().close()
        finally:
            for record in records:  # interrupted: the driver closes them when they are collected
                self._give_place(record.dbapi_connection)

    def _drain(self) -> list[ConnectionPoolEntry]:
        """Take everything out of SQLAlchemy's queue at once, so that nobody is handed what is about to be closed."""
        records = []
        while (record := self._take_idle()) is not None:
            records.append(record)
        return records

    def _take_idle(self) -> ConnectionPoolEntry | None:
        try:
            record = self._pool.get(False)
        except Empty:
            return None
        self._dec_overflow()
        return record

    def current(self) -> _Leasing:
        """This pool, or the one that ``Engine.dispose`` has put in its place."""
        pool = self
        while pool._successor is not None:
            pool = pool._successor
        return pool

    @classmethod
    def _like(cls, pool: QueuePool, **kw: Any) -> Any:
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
        return len(self._open) - self._asked_size

    def checkedout(self) -> int:
        """Physical connections that are leased now; virtual ones that hold nothing don't count."""
        return len(self._leases)

    # leases

    def acquire_lease(self) -> Lease:
        """A permit from the gate and a live physical connection.

        :raises Overloaded: the gate refused.
        """
        self.wait_for_permit()
        try:
            for _ in range(self.gate.connections + 1):
                lease = self._lend()
                if lease is not None:
                    return lease
            raise LeaseError(f"database {self.gate.name!r} closes every connection as soon as it is opened")
        except BaseException:
            self.gate.release()
            raise

    def _lend(self) -> Lease | None:
        """Check a connection out; None if the server had closed it while it was idle (a restart, a timeout)."""
        fairy = super().connect()
        try:
            has_ended = self.driver.has_ended(fairy.dbapi_connection)
            can_lease = not has_ended and self._can_lease(fairy)
        except BaseException as error:
            fairy.invalidate(error)
            raise
        if has_ended:
            fairy.invalidate()
            return None
        lease = Lease(fairy, self.driver, can_lease=can_lease, acquired_ns=self.gate.clock())
        lease.on_lost = self._take_back_lost
        self._leases[id(lease)] = weakref.ref(lease)
        return lease

    def _can_lease(self, fairy: PoolProxiedConnection) -> bool:
        answer: bool | None = fairy.info.get(CAN_LEASE)
        if answer is None:
            answer = fairy.info[CAN_LEASE] = self.driver.can_lease(fairy.dbapi_connection)
        if not answer:
            self._tell_why_not(
                "its transactions need one connection from their first statement on "
                "(isolation REPEATABLE READ or higher, or a driver in another transaction mode)"
            )
        return answer

    def _tell_why_not(self, reason: str) -> None:
        if not self._has_told_why_not:
            self._has_told_why_not = True
            log.info("database %r: connections are not leased: %s", self.gate.name, reason)

    def release_lease(self, lease: Lease) -> None:
        """Check the physical connection in, then pass the permit on."""
        fairy, lease.fairy = lease.fairy, None
        if fairy is None:
            return
        is_detached = fairy.is_detached
        try:
            is_dead = self.driver.is_dead(lease.dbapi)
            if fairy.is_valid and (is_dead or lease.is_suspect):
                fairy.invalidate()
            else:
                fairy._close_special(transaction_reset=is_dead or self.driver.is_idle(lease.dbapi))
            self._close_detached(lease, is_detached)
        finally:
            self._take_back_permit(lease)

    def discard_lease(self, lease: Lease, error: BaseException | None) -> None:
        """Close the physical connection for good, then pass the permit on."""
        fairy, lease.fairy = lease.fairy, None
        if fairy is None:
            return
        is_detached = fairy.is_detached
        try:
            fairy.invalidate(error)
            self._close_detached(lease, is_detached)
        finally:
            self._take_back_permit(lease)

    def _close_detached(self, lease: Lease, is_detached: bool) -> None:
        # SQLAlchemy lets go of some detached connections without closing them; they would keep their place.
        if is_detached and id(lease.dbapi) in self._open:
            self._close_connection(lease.dbapi)

    def _take_back_permit(self, lease: Lease) -> None:
        self._leases.pop(id(lease), None)
        self.gate.release(self.gate.clock() - lease.acquired_ns)

    def _take_back_lost(self, lease: Lease, is_detached: bool) -> None:
        dialect: Any = self._dialect
        if is_detached or (dialect.is_async and not dialect.has_terminate):
            self._give_place(lease.dbapi)  # nobody has closed it; the driver does when it is collected
        self._take_back_permit(lease)

    def wait_for_permit(self) -> None:
        """Take a permit from the gate, waiting as this kind of pool waits."""
        self.gate.acquire()

    def new_lock(self) -> AbstractContextManager[Any]:
        """Mutual exclusion for one virtual connection."""
        return threading.RLock()

    def _describe_holders(self) -> str:
        pools = (self, *self.kin())
        # list(): in one step, because other threads lease meanwhile.
        leases = [ref() for pool in pools for ref in list(pool._leases.values())]
        sites = Counter(lease.site for lease in leases if lease is not None and lease.site)
        return ", ".join(f"{site} ({count})" for site, count in sites.most_common(5))

    # places: the connections that are really open, counted in the gate

    def _should_wrap_creator(self, creator: Any) -> Any:
        create = super()._should_wrap_creator(creator)

        def create_in_a_place(rec: ConnectionPoolEntry) -> Any:
            self._take_place()
            try:
                connection = create(rec)
            except BaseException:
                self.gate.give_place()
                raise
            self._open.add(id(connection))
            return connection

        return create_in_a_place

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        try:
            super()._close_connection(connection, terminate=terminate)
        finally:
            self._give_place(connection)

    def _give_place(self, connection: Any) -> None:
        # By identity: a close that was interrupted is tried again, and must not give a second place.
        try:
            self._open.remove(id(connection))
        except KeyError:
            return
        self.gate.give_place()

    def _take_place(self) -> None:
        """Find room for one more connection; an idle one of either kind is ended if need be.

        Whoever has a permit finds a place: what is open and not idle is on its way from one state to the other.
        """
        for _ in range(PLACE_ATTEMPTS):
            if self.gate.take_place_nowait():
                return
            if not any(pool.evict_idle(self.wait_for_end) for pool in (*self.kin(), self)):
                self.pause(PLACE_PAUSE_S)
        raise LeaseError(
            f"database {self.gate.name!r}: all {self.gate.connections} connections of the budget are open "
            f"and none became idle within {PLACE_ATTEMPTS * PLACE_PAUSE_S:.0f} s.\n"
            f"State: {self.gate!r}.\nHeld by: {self._describe_holders() or 'unknown'}.\n"
            "Remedies: 1. close detached connections. 2. raise connections=."
        )

    def kin(self) -> list[_Leasing]:
        """The other pools of this gate that still live."""
        return [pool for ref in self._kin if (pool := ref()) is not None]

    def evict_idle(self, wait_for_end: Callable[[int], None]) -> bool:
        """End one idle connection, if there is one; called from any thread and from any event loop."""
        while (entry := self._take_idle()) is not None:
            record: Any = entry
            connection = record.dbapi_connection
            if connection is None:
                continue
            record.dbapi_connection = None
            try:
                if self.dispatch.close:
                    self.dispatch.close(connection, record)
            finally:
                self._end(connection, wait_for_end)
            return True
        return False

    def _end(self, connection: Any, wait_for_end: Callable[[int], None]) -> None:
        try:
            descriptor = self.driver.abort(connection)
            if descriptor is not None:
                with closing(socket.socket(fileno=descriptor)):
                    wait_for_end(descriptor)
        finally:
            self._give_place(connection)

    def wait_for_end(self, descriptor: int) -> None:
        """Wait until the server has let go of a connection, so that it never counts one too many."""
        has_input(descriptor, END_TIMEOUT_MS)

    def pause(self, seconds: float) -> None:
        """Let others go on."""
        time.sleep(seconds)


class LeasePool(_Leasing):
    """For ``create_engine(..., poolclass=LeasePool)``: takes the arguments of SQLAlchemy's ``QueuePool``."""


class AsyncLeasePool(_Leasing, AsyncAdaptedQueuePool):
    """For ``create_async_engine(..., poolclass=AsyncLeasePool)``: as ``AsyncAdaptedQueuePool``."""

    # Nobody waits in it, and other threads look into it, which asyncio's own queue does not bear.
    _queue_class: type[QueueCommon[ConnectionPoolEntry]] = Queue

    def wait_for_permit(self) -> None:
        """Take a permit from the gate; a task waits without holding up its loop."""
        if not self.gate.acquire_nowait():
            await_only(self.gate.acquire_async())

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


def unite(one: _Leasing, other: _Leasing) -> None:
    """Make two pools of one gate make room for each other."""
    one._kin = [weakref.ref(other)]
    other._kin = [weakref.ref(one)]


EngineT = TypeVar("EngineT", Engine, AsyncEngine)


def lease(engine: EngineT, *, options: LeaseOptions | None = None, gate: Gate | None = None) -> EngineT:
    """Make an engine that exists lease its connections; call it before the engine's first use.

    The budget is what the engine's pool allows (``pool_size + max_overflow``), the wait its ``pool_timeout``.
    Pools that hold one connection for everybody (in-memory SQLite) or none at all stay as they are.

    :returns: the same engine; unchanged with ``HEADGATE=off``.
    :raises ConfigError: the engine has been used already, or its pool is unbounded.
    """
    if not isinstance(engine, Engine | AsyncEngine):
        raise ConfigError(f"lease(<{type(engine).__name__}>) cannot work: give an Engine or an AsyncEngine")
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    pool = sync_engine.pool
    if isinstance(pool, _Leasing):
        return engine
    if not isinstance(pool, QueuePool):
        log.info("connections are not leased: the engine's pool is a %s", type(pool).__name__)
        return engine
    if pool.checkedin() or pool.checkedout():
        raise ConfigError(
            f"lease(engine) came too late: the engine has {pool.checkedin() + pool.checkedout()} open connections. "
            "Call it right after create_engine()."
        )
    kind = AsyncLeasePool if isinstance(pool, AsyncAdaptedQueuePool) else LeasePool
    sync_engine.pool = kind._like(pool, lease_options=options, gate=gate)
    return engine


def _can_lease_from_sqlalchemy(options: LeaseOptions) -> bool:
    missing = missing_seams()
    if missing:
        message = (
            f"connections are not leased: SQLAlchemy {sqlalchemy.__version__} lacks {', '.join(missing)}. "
            "Install a version that Headgate's README names, or a newer Headgate."
        )
        if options.strict:
            raise ConfigError(message)
        log.warning(message)
    return not missing


def budget_of(pool_size: int, max_overflow: int) -> int:
    """How many connections a queue pool allows.

    :raises ConfigError: it sets no bound.
    """
    if pool_size == 0 or max_overflow < 0:
        raise ConfigError(
            f"pool_size={pool_size}, max_overflow={max_overflow} sets no bound, and a budget needs one: "
            "use pool_size >= 1 and max_overflow >= 0"
        )
    return pool_size + max_overflow


_stock_get_raw_connection = AsyncConnection.get_raw_connection


async def _get_raw_connection(self: AsyncConnection) -> Any:
    """As SQLAlchemy's; a virtual connection acquires here, where it still may await."""
    raw = await _stock_get_raw_connection(self)
    if isinstance(raw, VirtualConnection):
        await greenlet_spawn(getattr, raw, "dbapi_connection")
    return raw


# The one method of SQLAlchemy that is replaced: what it returns is used outside SQLAlchemy's greenlets, where
# nothing can be acquired any more. For every other engine it behaves as before.
AsyncConnection.get_raw_connection = _get_raw_connection  # type: ignore[method-assign]
