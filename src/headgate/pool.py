"""LeasePool and AsyncLeasePool: SQLAlchemy's queue pools that hand out virtual connections.

Free physical connections stay checked in to SQLAlchemy's own queue, so its bookkeeping, recycling, pre-ping and
events go on as ever. The gate bounds how many are out, so nobody ever waits inside that queue.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import (
    AsyncAdaptedQueuePool,
    ConnectionPoolEntry,
    PoolProxiedConnection,
    QueuePool,
)
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.queue import Empty

from headgate.config import GateOptions, LeaseOptions, is_switched_off
from headgate.drivers import Driver, driver_for
from headgate.errors import ConfigError, LeaseError
from headgate.gate import Gate
from headgate.lease import Lease, TaskLock, VirtualConnection
from headgate.statements import StatementProof

log = logging.getLogger("headgate.pool")

CAN_LEASE = "headgate.can_lease"
"""Key in a physical connection's ``info``: the answer to the one question asked of each."""

RETURNED_NS = "headgate.returned_ns"
"""Key in a physical connection's ``info``: when it was checked in last."""

PING_AFTER_IDLE_NS = 1_000_000_000
"""With ``pool_pre_ping``, a connection that was idle for less is not pinged again: leases come once a statement."""

EVICTION_TIMEOUT_S = 5.0
"""How long a thread waits for an event loop to close one idle connection for it."""


class _Leasing(QueuePool):
    """What the two pools share; they differ in who waits and how."""

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
        self.gate = gate or Gate(_gate_options(pool_size, max_overflow, timeout))
        self.gate.describe_holders = self._describe_holders
        self._leases: dict[int, weakref.ref[Lease]] = {}
        self._kin: list[weakref.ref[_Leasing]] = []
        self._is_initialized = False
        self._is_retired = False
        self._has_told_why_not = False
        driver = driver_for(kw.get("dialect"))
        self.enabled = self.options.enabled and not is_switched_off() and driver is not None
        if driver is None:
            self._tell_why_not("Headgate leases psycopg, asyncpg, sqlite3 and aiosqlite connections only")
        else:
            self.driver: Driver = driver
            self.proof = StatementProof(driver.family, read_functions=self.options.read_functions)
        if self.enabled:
            # Every lease ends with a check-in: an overflow that is closed then would connect once a statement.
            pool_size, max_overflow = self.gate.connections, 0
        super().__init__(creator, pool_size, max_overflow, timeout, use_lifo, **kw)

    # SQLAlchemy's side

    def connect(self) -> PoolProxiedConnection:
        """A virtual connection; nothing is acquired before its first statement.

        The very first one of a pool connects at once, because SQLAlchemy learns about the server there.
        """
        if not self.enabled:
            return super().connect()
        if not self._is_initialized:
            self.release_lease(self.acquire_lease())
            self._is_initialized = True
        return VirtualConnection(self)

    def recreate(self) -> Any:
        """A new pool of the same kind over the same gate, as ``Engine.dispose`` asks for.

        What is still leased from the old one counts against the budget until it comes back and is closed.
        """
        self._is_retired = True
        for _ in range(self.checkedin()):  # dispose(close=False) abandons them, e.g. in a forked child
            self.gate.give_place()
        new = self._like(self, gate=self.gate, lease_options=self.options)
        new._is_initialized = self._is_initialized
        for other in self.kin():
            unite(new, other)
        return new

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

    def _do_get(self) -> ConnectionPoolEntry:
        record: Any = super()._do_get()
        if self.enabled and self._pre_ping:
            idle_ns = self.gate.clock() - record.info.get(RETURNED_NS, -PING_AFTER_IDLE_NS)
            record.fresh = record.fresh or idle_ns < PING_AFTER_IDLE_NS
        return record  # type: ignore[no-any-return]

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self.enabled and self._pre_ping:
            record.info[RETURNED_NS] = self.gate.clock()
        if not self._is_retired:
            super()._do_return_conn(record)
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
        return self._open_count() - self._asked_size

    def checkedout(self) -> int:
        """Physical connections that are leased now; virtual ones that hold nothing don't count."""
        return self._open_count() - self.checkedin()

    def _open_count(self) -> int:
        return self._pool.maxsize + self._overflow

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
        try:
            if lease.is_suspect:
                fairy.invalidate()
            else:
                must_close = fairy.is_detached and self._drops_unclosed()
                is_idle = self.driver.is_idle(lease.dbapi)
                fairy._close_special(transaction_reset=is_idle)
                if must_close:
                    self._close_connection(lease.dbapi)
        finally:
            self._take_back_permit(lease)

    def discard_lease(self, lease: Lease, error: BaseException | None) -> None:
        """Close the physical connection for good, then pass the permit on."""
        fairy, lease.fairy = lease.fairy, None
        if fairy is None:
            return
        try:
            fairy.invalidate(error)
        finally:
            self._take_back_permit(lease)

    def _take_back_permit(self, lease: Lease) -> None:
        self._leases.pop(id(lease), None)
        self.gate.release(self.gate.clock() - lease.acquired_ns)

    def _take_back_lost(self, lease: Lease) -> None:
        if self._drops_unclosed():
            self.gate.give_place()  # the driver closes it when it is collected
        self._take_back_permit(lease)

    def _drops_unclosed(self) -> bool:
        """SQLAlchemy lets go of forgotten and detached connections of such drivers without closing them."""
        dialect: Any = self._dialect
        return bool(dialect.is_async and not dialect.has_terminate)

    def wait_for_permit(self) -> None:
        """Take a permit from the gate, waiting as this kind of pool waits."""
        self.gate.acquire()

    def new_lock(self) -> AbstractContextManager[Any]:
        """Mutual exclusion for one virtual connection."""
        return threading.RLock()

    def _describe_holders(self) -> str:
        leases = [ref() for ref in list(self._leases.values())]  # one step: other threads lease meanwhile
        sites = Counter(lease.site for lease in leases if lease is not None and lease.site)
        return ", ".join(f"{site} ({count})" for site, count in sites.most_common(5))

    # places: the connections that are really open, counted in the gate

    def _should_wrap_creator(self, creator: Any) -> Any:
        create = super()._should_wrap_creator(creator)
        if not self.enabled:
            return create

        def create_in_a_place(rec: ConnectionPoolEntry) -> Any:
            self._take_place()
            try:
                return create(rec)
            except BaseException:
                self.gate.give_place()
                raise

        return create_in_a_place

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        try:
            super()._close_connection(connection, terminate=terminate)
        finally:
            if self.enabled:
                self.gate.give_place()

    def _take_place(self) -> None:
        """Find room for one more connection; an idle one of the other kind is closed if need be."""
        while not self.gate.take_place_nowait():
            if not any(pool.evict_idle() for pool in (*self.kin(), self)):
                raise LeaseError(
                    f"database {self.gate.name!r}: all {self.gate.connections} connections of the budget are open "
                    "and none is idle.\nRemedies: 1. close detached connections. 2. raise connections=."
                )

    def kin(self) -> list[_Leasing]:
        """The other pools of this gate that still live."""
        return [pool for ref in self._kin if (pool := ref()) is not None]

    def evict_idle(self) -> bool:
        """Close one idle connection, if there is one."""
        while True:
            try:
                record = self._pool.get(False)
            except Empty:
                return False
            had_connection = record.dbapi_connection is not None
            try:
                record.close()
            finally:
                self._dec_overflow()
            if had_connection:
                return True


class LeasePool(_Leasing):
    """For ``create_engine(..., poolclass=LeasePool)``: takes the arguments of SQLAlchemy's ``QueuePool``."""


class AsyncLeasePool(_Leasing, AsyncAdaptedQueuePool):
    """For ``create_async_engine(..., poolclass=AsyncLeasePool)``: as ``AsyncAdaptedQueuePool``."""

    _loop: asyncio.AbstractEventLoop | None = None

    def wait_for_permit(self) -> None:
        """Take a permit from the gate; a task waits without holding up its loop."""
        if not self.gate.acquire_nowait():
            await_only(self.gate.acquire_async())

    def new_lock(self) -> AbstractContextManager[Any]:
        """Mutual exclusion for one virtual connection."""
        return TaskLock()

    def _take_place(self) -> None:
        self._loop = asyncio.get_running_loop()
        super()._take_place()

    def evict_idle(self) -> bool:
        """Close one idle connection on its own event loop, wherever this is called from."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return False
        if _running_loop() is loop:
            return super().evict_idle()
        closing = asyncio.run_coroutine_threadsafe(greenlet_spawn(super().evict_idle), loop)
        return closing.result(EVICTION_TIMEOUT_S)


def unite(one: _Leasing, other: _Leasing) -> None:
    """Make two pools of one gate make room for each other."""
    one._kin = [weakref.ref(other)]
    other._kin = [weakref.ref(one)]


EngineT = TypeVar("EngineT", Engine, AsyncEngine)


def lease(engine: EngineT, *, options: LeaseOptions | None = None, gate: Gate | None = None) -> EngineT:
    """Make an engine that exists lease its connections; call it before the engine's first use.

    The budget is what the engine's pool allows (``pool_size + max_overflow``), the wait its ``pool_timeout``.
    Pools that hold one connection for everybody (in-memory SQLite) or none at all stay as they are.

    :returns: the same engine.
    :raises ConfigError: the engine has been used already, or its pool is unbounded.
    """
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


def _gate_options(pool_size: int, max_overflow: int, timeout: float) -> GateOptions:
    if pool_size == 0 or max_overflow < 0:
        raise ConfigError(
            f"pool_size={pool_size}, max_overflow={max_overflow} sets no bound, and a budget needs one: "
            "use pool_size >= 1 and max_overflow >= 0"
        )
    return GateOptions(connections=pool_size + max_overflow, max_wait=timeout)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


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
